"""Sizes that are not so: the epochs after the first have the steps of what is really there.

The tokenizer is given, because training one reads all shards, whose sizes are then known.
"""

import json
from pathlib import Path

import pytest
from commands import command, launch, losses
from layouts import COUNT, webdataset

BATCH = 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a streamed run and of one in memory on shards said to hold twice as many."""
    open_clip = pytest.importorskip("open_clip")
    merges = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    folder = tmp_path_factory.mktemp("said")
    layout = webdataset(folder / "in")
    names = {path.name: COUNT for path in (folder / "in").glob("*.tar")}
    assert len(names) == 2
    (folder / "in" / "sizes.json").write_text(json.dumps(names))
    flags = ["--train-data", layout.path, "--train-batch-size", str(BATCH), "--epochs", "3"]
    flags += ["--model", "tiny-convnet", "--image-size", "16", "--warmup", "1"]
    flags += ["--report-to", "none", "--logs", str(folder), "--tokenizer", str(merges)]
    for kept in ("never", "always"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTCLIP_CACHE", str(folder / f"cache-{kept}"))
            done = launch(command(*flags, "--in-memory", kept, "--name", kept))
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"an epoch has {COUNT} records" in done.stdout + done.stderr
    return folder


def test_later_epochs_have_their_real_steps(runs):
    lines = (runs / "never" / "metrics.jsonl").read_text().splitlines()
    # The first shard is opened before, to see that it has captions, and its size is known then.
    said, real = (COUNT // 2 + COUNT) // BATCH, COUNT // BATCH
    assert [json.loads(line)["epoch"] for line in lines] == [0] * said + [1] * real + [2] * real
    state = runs / "never" / "checkpoints" / f"step_{said + 2 * real:08d}" / "complete.json"
    assert state.exists()


def test_they_are_the_same_streamed_and_in_memory(runs):
    assert losses(runs / "never") == losses(runs / "always")
