"""``fastclip/train.py`` on streamed shards: killed during a step and resumed."""

import tarfile
from pathlib import Path

import pytest
from commands import TINY, command, kill_when, launch, launcher, losses, start

SHARDS, SAMPLES = 16, 512


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    """As many shards as two ranks of two workers need to have their own; one picture is cut."""
    from fastclip.data.generated import shards as generated
    from fastclip.data.generated.samples import GeneratedSpec

    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated, "SAMPLES_PER_SHARD", SAMPLES // SHARDS)
        spec = GeneratedSpec(num_samples=SAMPLES, num_val=1)
        made = generated.generate(folder / "set", spec, progress=False)
        pattern = made.train
    assert pattern.endswith(f"train-{{0000..{SHARDS - 1:04d}}}.tar")
    shard = Path(made.folder, "train-0003.tar")
    with tarfile.open(shard) as tar:
        picture = next(member for member in tar if member.name.endswith(".png"))
    with shard.open("r+b") as file:
        file.seek(picture.offset_data + 40)
        file.write(bytes(100))
    return pattern


def test_resume_after_kill_9_repeats_the_losses(shards, tmp_path):
    def args(name: str, *more: str) -> list[str]:
        stream = ["--train-data", shards, "--in-memory", "never", "--workers", "2"]
        into = ["--logs", str(tmp_path), "--name", name, "--save-frequency", "2", *more]
        return command(*TINY, *stream, *into, launcher=launcher(2))

    uninterrupted = start(args("whole"))
    run = tmp_path / "broken"
    process = start(args("broken", "--resume", "auto"))
    saved = run / "checkpoints" / "step_00000004" / "complete.json"
    kill_when(process, lambda: saved.exists() and len(losses(run)) >= 5)
    assert len(losses(run)) < SAMPLES // 64
    resumed = launch(args("broken", "--resume", "auto"))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "resuming at step 4:" in resumed.stdout
    _, told = uninterrupted.communicate(timeout=240)
    assert uninterrupted.returncode == 0, told[-3000:]
    assert "skipped train-0003/" in told
    assert len(losses(run)) == SAMPLES // 64
    assert losses(run) == losses(tmp_path / "whole")

    # Whether the set lies in memory changes nothing, nor do the workers.
    kept = ["--train-data", shards, "--in-memory", "always", "--logs", str(tmp_path)]
    done = launch(command(*TINY, *kept, "--name", "kept", launcher=launcher(2)))
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "kept") == losses(tmp_path / "whole")
