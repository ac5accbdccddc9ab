"""What is said of the classes of a split: their names, prompts and captions."""

import json
from pathlib import Path
from typing import Any

from fastclip.data.generated.shards import ensure_generated
from fastclip.data.sources.base import AnySource
from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.shard_list import expand
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError


def class_texts_of(source: AnySource, spec: DataSpec) -> dict[str, list]:
    """``classes``, ``prompts`` and ``captions``, as far as they are said of ``spec``.

    A classes.json beside the shards says all three; other sources may know the names of their
    classes. Raises :class:`UserError` for texts of another form.
    """
    path = _beside_shards(spec)
    if path is not None and path.is_file():
        return _read(path)
    return {} if source.class_names is None else {"classes": list(source.class_names)}


def _beside_shards(spec: DataSpec) -> Path | None:
    """Where a classes.json may lie; None for data of another layout than shards."""
    layouts = {layout.name for _, layout in layouts_of(spec)}
    if layouts == {"synthetic"}:
        return ensure_generated(Path(spec.path)).folder / "classes.json"
    if layouts == {"webdataset"}:
        return Path(expand(spec.path)[0]).with_name("classes.json")
    return None


def _read(path: Path) -> dict[str, list]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
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


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(x, str) for x in found)
