"""The cleaning that CLIP's tokenizer was trained behind."""

import html

import ftfy


def clean(text: str) -> str:
    """Mend broken Unicode and HTML entities, collapse white space, lower the case."""
    plain = text.isascii() and text.isprintable() and "&" not in text
    if not plain:
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()
