"""One short text that changes with any of many."""

import hashlib
from collections.abc import Iterable


def fingerprint(texts: Iterable[str]) -> str:
    """SHA-256 over texts, which changes with each of them and with their order."""
    hashed = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", errors="surrogatepass")
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()
