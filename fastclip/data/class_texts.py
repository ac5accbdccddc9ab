"""What a classes.json beside the shards says of the classes of a split."""

import json
from pathlib import Path

from fastclip.data.old_sources import DataSpec, detect_type, expand
from fastclip.errors import UserError


def class_texts(spec: DataSpec) -> dict[str, list]:
    """What a classes.json beside the shards says: ``classes``, ``prompts`` and ``captions``.

    Raises :class:`UserError` for texts of another form.
    """
    if detect_type(spec) != "webdataset":
        return {}
    path = Path(expand(spec.path)[0]).with_name("classes.json")
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, expected an object")
    names = ("classes", "prompts", "captions")
    found = {name: content[name] for name in names if content.get(name) is not None}
    classes, captions = found.get("classes", []), found.get("captions")
    if "classes" in found and not _are_texts(classes):
        raise UserError(f"{path}: classes is not a list of names")
    prompts = found.get("prompts", ["{}"])
    if not _are_texts(prompts) or not all("{}" in prompt for prompt in prompts):
        raise UserError(f"{path}: prompts is not a list of templates such as 'a photo of a {{}}.'")
    if captions is not None:
        each = isinstance(captions, list) and all(map(_are_texts, captions))
        if not each or len(captions) != len(classes):
            raise UserError(
                f"{path}: captions is not a list of texts for each of the {len(classes)} classes"
            )
    return found


def _are_texts(found) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(x, str) for x in found)
