"""``fastclip/train.py`` with ``--cache``: the same losses, on one rank and on two."""

import pytest
from commands import TINY, command, launch, launcher, losses

from fastclip.data.generated.samples import GeneratedSpec
from fastclip.data.generated.shards import generate
from fastclip.errors import UserError
from fastclip.training.options.data import DataConfig

STREAMED = ["--in-memory", "never", "--epochs", "2", "--workers", "1"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    spec = GeneratedSpec(num_samples=160, num_val=1)
    return generate(tmp_path_factory.mktemp("shards") / "set", spec, progress=False).train


def test_the_cache_changes_no_loss(shards, tmp_path):
    def train(name: str, *more: str, ranks: int = 1):
        into = ["--train-data", shards, "--logs", str(tmp_path), "--name", name]
        starter = launcher(ranks) if ranks > 1 else ()
        done = launch(command(*TINY, *STREAMED, *into, *more, launcher=starter))
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    cache = str(tmp_path / "cache")
    train("streamed")
    first = train("first", "--cache", cache, ranks=2)
    assert f"note: --cache {cache} holds 0 decoded pictures of this set" in first
    second = train("second", "--cache", cache, "--cache-limit", "1")
    assert "decoded pictures of this set and may take up to 1 GiB\n" in second
    assert "holds 0 decoded" not in second
    assert losses(tmp_path / "streamed") == pytest.approx(losses(tmp_path / "first"), rel=1e-4)
    assert losses(tmp_path / "streamed") == losses(tmp_path / "second")


def test_a_cache_that_cannot_be_written_ends_the_run_before_its_first_step(shards, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    into = ["--train-data", shards, "--logs", str(tmp_path), "--cache", str(tmp_path / "file")]
    done = launch(command(*TINY, *STREAMED, *into))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: --cache "), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"cache_limit": 1.0}, "--cache-limit needs --cache"),
        ({"cache": "x", "cache_limit": 0.0}, "--cache-limit is 0.0, expected more than 0"),
        ({"cache": "x", "cache_limit": float("nan")}, "expected more than 0"),
        ({"cache": "x", "in_memory": "always"}, "--in-memory always"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, told):
    with pytest.raises(UserError, match=told):
        DataConfig(**flags).check()
