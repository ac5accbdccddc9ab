"""The folder of a finished run, opened again as a model to use."""

from fastclip.runs.loading import load_run as load_run
from fastclip.runs.trained import Trained as Trained
