"""The cleaning that CLIP's tokenizer was trained behind, and what counts as no text after it."""

import html
import re
import unicodedata

import ftfy

_ASCII_WORD = re.compile(r"[A-Za-z0-9]")
# Signs that no tokenizer of a bag of words takes for a word.
_PLAIN_SIGNS = frozenset(",.:;_")
# Characters that show nothing though Unicode files them under letters, marks or symbols: fillers,
# joiners, variation selectors, the blank Braille cell, and the stand-in for what was undecodable.
_BLANK = frozenset(
    chr(code)
    for code in (
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0xFFFD),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    )
)
# Control and format characters, surrogates, and separators of words, lines and paragraphs.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})


def clean(text: str) -> str:
    """Mend broken Unicode and HTML entities, collapse white space, lower the case."""
    plain = text.isascii() and text.isprintable() and "&" not in text
    if not plain:
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def without_accents(text: str) -> str:
    """Compatibility forms taken apart (NFKD) and combining marks left out, as VirTex has it.

    The result is in lower case: some signs, such as the script letters, have none of their own.
    """
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", text)
    return "".join(char for char in parts if not unicodedata.combining(char)).lower()


def is_empty(text: str) -> bool:
    """Whether :func:`clean` leaves nothing that can be seen, plain punctuation apart.

    Every layer asks this function, so that no caption is a text for one and none for another.
    """
    # Cleaning keeps ASCII words where there is nothing to unescape and no control sequence.
    if "&" not in text and text.isprintable() and _ASCII_WORD.search(text):
        return False
    return all(
        char in _PLAIN_SIGNS or char in _BLANK or unicodedata.category(char) in _INVISIBLE
        for char in clean(text)
    )
