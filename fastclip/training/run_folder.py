"""A run's folder: what was asked for, with which versions, and where checkpoints live."""

import json
import platform
import subprocess
from datetime import datetime
from importlib import metadata
from pathlib import Path

import yaml

from fastclip.errors import UserError, expand_home
from fastclip.training import checkpoint
from fastclip.training.config import TrainConfig, to_plain
from fastclip.whole_files import write_whole

_PACKAGES = ["fastclip-engine", "torch", "deepspeed", "timm", "transformers", "tokenizers"]
_PACKAGES += ["torchvision", "webdataset", "numpy"]


# Where a run is and what it tells, not what it learns.
_MAY_CHANGE = {"resume", "logs", "name", "report_to", "log_every_n_steps", "data_root"}
_MAY_CHANGE |= {"save_frequency", "keep_checkpoints", "val_frequency", "zeroshot_frequency"}
_MAY_CHANGE |= {"wandb_project_name", "wandb_notes"}


def choose(cfg: TrainConfig) -> tuple[Path, Path | None]:
    """The run's folder and the checkpoint to resume from (None: a fresh run)."""
    logs, name = expand_home(cfg.run.logs, "--logs"), cfg.run.name
    if cfg.run.resume in ("auto", "latest"):
        run = logs / name if name else _newest(logs)
        if run is not None and (found := checkpoint.complete(run / "checkpoints")):
            return run, found[-1]
    elif cfg.run.resume != "none":
        path = expand_home(cfg.run.resume, "--resume")
        return _from_path(path, logs / name if name else None)
    model = cfg.model.model.replace(":", "-")
    run = logs / (name or f"{model}-{datetime.now():%Y%m%d-%H%M%S}")
    if cfg.run.resume == "none" and (run / "metrics.jsonl").exists():
        raise UserError(
            f"--name {run.name}: {run} holds a run already; choose another name or give "
            "--resume auto"
        )
    return run, None


def _from_path(path: Path, run: Path | None) -> tuple[Path, Path]:
    """The run and checkpoint of ``--resume PATH``: a checkpoint's folder, or a run's."""
    if not (path / checkpoint.MARKER).is_file():
        found = checkpoint.complete(path / "checkpoints")
        if not found:
            raise UserError(
                f"--resume is {path}, expected none, auto, a run's folder or one of its "
                "checkpoints/step_*"
            )
        path = found[-1]
    own = path.parent.parent
    if run is not None and run.resolve() != own.resolve() and (run / "metrics.jsonl").exists():
        raise UserError(
            f"--name {run.name}: {run} holds another run than --resume {path}; choose another name"
        )
    return run or own, path


def _newest(logs: Path) -> Path | None:
    """The run that was started last, whether or not it has a checkpoint yet."""
    runs = [p.parent for p in logs.glob("*/config.yaml")]
    return max(runs, key=lambda p: (p / "config.yaml").stat().st_mtime, default=None)


def changes(run: Path, cfg: TrainConfig) -> list[str]:
    """Flags that differ from those of the run's last start, as ``--lr 0.1 (was 0.003)``."""
    try:
        before = yaml.safe_load((run / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return []
    known = _flat(before) if isinstance(before, dict) else {}
    return [
        f"--{name.replace('_', '-')} {value} (was {known[name]})"
        for name, value in _flat(to_plain(cfg)).items()
        if name in known and name not in _MAY_CHANGE and known[name] != value
    ]


def _flat(plain: dict, prefix: str = "") -> dict:
    """Nested mappings as one, with dotted names."""
    found: dict = {}
    for name, value in plain.items():
        nested = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def write(run: Path, cfg: TrainConfig, deepspeed: dict) -> None:
    """Record the resolved configuration, DeepSpeed's and the versions; readable by ``--config``."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--logs {run.parent}: {run} cannot be made: {error.strerror}") from error
    texts = {
        "config.yaml": yaml.safe_dump(to_plain(cfg), sort_keys=False),
        "deepspeed.json": json.dumps(deepspeed, indent=2),
        "versions.json": json.dumps(versions(), indent=2),
    }
    for name, text in texts.items():
        write_whole(run / name, text)


def versions() -> dict[str, str]:
    """Versions of Python and the packages a result depends on, and our git revision."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["git_revision"] = _git_revision()
    return found


def _git_revision() -> str:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return "not a git checkout"
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
