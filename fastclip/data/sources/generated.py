"""The generated set: shards that are written when they are first asked for."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from fastclip.data.generated.shards import ensure_generated
from fastclip.data.sources.base import AnySource
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError


def detects(path: Path, head: bytes) -> bool:
    """Never: the set is asked for by ``--dataset-type synthetic``."""
    return False


def open_source(spec: DataSpec, wanted: frozenset[str]) -> AnySource:
    """The training shards of the set that is kept below the folder ``spec.path``."""
    webdataset = import_module("fastclip.data.sources.webdataset")
    if not spec.path:
        raise UserError("the generated set needs a folder to be kept in")
    shards = ensure_generated(Path(spec.path)).train
    return webdataset.open_source(replace(spec, path=shards, dataset_type="webdataset"), wanted)
