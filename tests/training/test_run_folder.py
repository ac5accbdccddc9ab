"""What a run's folder records."""

from pathlib import Path

import pytest

from fastclip.data.augment import AugmentConfig
from fastclip.errors import UserError
from fastclip.training import run_folder
from fastclip.training.config import train_config


@pytest.mark.parametrize("flag", ["logs", "resume"])
def test_a_home_folder_that_is_not_known_is_refused(flag):
    with pytest.raises(UserError, match=f"--{flag} is ~nobody_of_this_name.*home folder is not"):
        run_folder.choose(train_config(**{flag: Path("~nobody_of_this_name/runs")}))


def test_changed_flags_are_named(tmp_path):
    before = train_config(name="run", lr=3e-3)
    run_folder.write(tmp_path, before, {})
    assert run_folder.changes(tmp_path, before) == []
    after = before.replace(lr=0.1, resume="auto", log_every_n_steps=1)
    assert run_folder.changes(tmp_path, after) == ["--lr 0.1 (was 0.003)"]
    turned = before.replace(augment=AugmentConfig(degrees=5.0))
    assert run_folder.changes(tmp_path, turned) == ["--augment.degrees 5.0 (was 0.0)"]
    assert run_folder.changes(tmp_path / "no run", after) == []
    for broken in (b"", b"- 1", b"\xff", b"a: ["):
        (tmp_path / "config.yaml").write_bytes(broken)
        assert run_folder.changes(tmp_path, after) == []
