"""Stands in for modules of layouts, so that what opens them is tested without them."""

import sys
from types import ModuleType

from listed_sources import ListedRecords, ListedStream

from fastclip.data.sources.base import Record
from fastclip.data.sources.shard_list import expand, is_local

ENDINGS = {
    "flickr": ".token",
    "csv_file": ".csv",
    "karpathy": "karpathy.json",
    "visual_genome": "regions.json",
    "lavis": "lavis.json",
    "coco": "coco.json",
}


def stand_in(monkeypatch):
    """Stand-ins for the layouts of annotation files and of shards.

    Returns a list of the (module, spec, wanted) that sources were opened with. A source holds
    pictures and captions, one record named after its path; shards may hold anything.
    """
    opened = []

    def add(name, detects, source):
        module = ModuleType(name)

        def open_source(spec, wanted):
            opened.append((name, spec, wanted))
            return source(spec)

        module.detects, module.open_source = detects, open_source
        monkeypatch.setitem(sys.modules, f"fastclip.data.sources.{name}", module)

    for name, ending in ENDINGS.items():
        add(name, lambda path, head, end=ending: path.name.endswith(end), _annotated)
    add("webdataset", None, _shards)
    return opened


def _annotated(spec):
    records = [Record(spec.path, {"caption": "a"})]
    return ListedRecords(spec.path, [records], frozenset(("picture", "caption")))


def _shards(spec):
    urls = expand(spec.path)
    parts = [[Record(url, {})] for url in urls]
    if all(map(is_local, urls)):
        return ListedRecords(spec.path, parts)
    return ListedStream(spec.path, parts)
