"""The folder that keeps indexes between runs."""

import functools
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """``$FASTCLIP_CACHE/index``, or ``~/.cache/fastclip/index``; None where neither can be made."""
    return make_folder(os.environ.get("FASTCLIP_CACHE", ""))


@functools.cache
def make_folder(root: str) -> Path | None:
    """The folder of indexes under ``root``, made once a process; "" is the user's own cache."""
    try:
        folder = (Path(root).expanduser() if root else Path.home() / ".cache/fastclip") / "index"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        say_not_kept(str(error))
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        say_not_kept(f"{folder} is not writable")
        return None
    return folder


@functools.cache
def say_not_kept(why: str) -> None:
    """One line, once, on indexes that are not kept."""
    logger.warning(
        "indexes of shards are not kept, each run reads their headers again: %s; "
        "FASTCLIP_CACHE names another folder",
        why,
    )
