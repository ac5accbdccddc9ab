"""Formats that are not read, by their first bytes: for sentences on what was found instead."""

_STARTS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\1\0": "ICO",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\x1f\x8b": "gzip",
    b"PK\3\4": "zip",
    b"{": "JSON",
    b"P4": "PBM",
    b"P5": "PGM",
    b"P6": "PPM",
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIC"),
}


def foreign_format(start: bytes) -> str | None:
    """What a file that starts with these (up to 64) bytes is, where it is known."""
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "video")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        return "SVG" if text[:4].lower() == b"<svg" else "HTML or XML"
    return next((name for begin, name in _STARTS.items() if start.startswith(begin)), None)
