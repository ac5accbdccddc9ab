"""Which file names are pictures, for every layout alike."""

PICTURE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
"""Endings of the formats that are decoded."""

# fmt: off
NO_PICTURE_EXTENSIONS = frozenset((
    "txt", "md", "rst", "html", "htm", "pdf", "json", "jsonl", "csv", "tsv", "xml", "yaml", "yml",
    "toml", "ini", "cfg", "log", "db", "py", "ipynb", "sh", "parquet", "npy", "npz", "pt", "pkl",
    "mat", "sha256", "md5", "tar", "tgz", "zip", "gz",
))
# fmt: on
"""Endings of files that lie beside pictures and that nobody takes for one."""


def extension(name: str) -> str:
    """What follows the last dot of a path's file name, in lower case; "" where nothing does."""
    stem, dot, ending = name.rsplit("/", 1)[-1].rpartition(".")
    return ending.lower() if stem and dot else ""


def is_picture(name: str) -> bool:
    """Whether a file of that name is read as a picture; hidden files are not."""
    return extension(name) in PICTURE_EXTENSIONS and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether the file or folder of that path is hidden by a dot."""
    return name.rsplit("/", 1)[-1].startswith(".")
