"""Files that the data name more than once."""

import os
import re
from collections import Counter

from fastclip.data.sources.shard_list import expand, is_local, is_pattern


def listed_twice(path: str, role: str) -> list[str]:
    """A sentence on the files, folders and urls that ``path`` lists more than once, if any.

    ``role`` is the flag that named the data.
    """
    names: list[str] = []
    for one in path.split("::"):
        one = re.sub(r"^file:(//)?", "", one)
        names += expand(one) if is_pattern(one) else [one] if one else []
    same = [os.path.realpath(name) if is_local(name) else name for name in names]
    again = {name: count for name, count in Counter(same).items() if count > 1}
    if not again:
        return []
    first, count = next(iter(again.items()))
    more = (
        f", and {len(again) - 1} more are listed more than once" if again.keys() - {first} else ""
    )
    return [
        f"{names[same.index(first)]} is listed {count} times in {role}: its records count as "
        f"often{more}"
    ]
