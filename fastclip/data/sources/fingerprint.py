"""Short texts that change with what they stand for."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint(texts: Iterable[str]) -> str:
    """SHA-256 over texts, which changes with each of them and with their order."""
    hashed = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", errors="surrogatepass")
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def file_stamp(path: Path) -> str:
    """Bytes and time of change of a file; empty where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
