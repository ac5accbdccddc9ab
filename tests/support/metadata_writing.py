"""Folders of pictures with a table."""

import json

from source_checks import write_pictures


def write_table(folder, text, name="metadata.csv", pictures=("1.png", "2.png")):
    write_pictures(folder, *pictures)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def write_rows(folder, *rows, pictures=("1.png", "2.png")):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return write_table(folder, text, "metadata.jsonl", pictures)
