"""Former place of :func:`fastclip.runs.load_run`, for one more release."""

import warnings
from pathlib import Path

from fastclip.runs import Trained as Trained
from fastclip.runs import load_run as _load_run


def load_run(folder: Path | str) -> Trained:
    """See :func:`fastclip.runs.load_run`."""
    warnings.warn(
        "fastclip.training.trained is now fastclip.runs: `from fastclip.runs import load_run`",
        DeprecationWarning,
        stacklevel=2,
    )
    return _load_run(folder)
