"""Small folders in VOC's form."""

from source_checks import write_pictures


def annotation(*objects, filename=""):
    items = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult></object>"
        for name, difficult in objects
    )
    return f"<annotation><filename>{filename}</filename>{items}</annotation>"


def write_voc(root, annotations, pictures=None, splits=None):
    """A year of VOC; ``annotations`` are texts or bytes by id."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, text in annotations.items():
        data = text if isinstance(text, bytes) else text.encode()
        (root / "Annotations" / f"{stem}.xml").write_bytes(data)
    names = [f"{stem}.jpg" for stem in annotations] if pictures is None else pictures
    write_pictures(root / "JPEGImages", *names)
    for split, lines in (splits or {}).items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)
    return root
