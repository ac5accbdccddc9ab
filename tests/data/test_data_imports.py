import ast
from pathlib import Path

import pytest

import fastclip.data

ROOT = Path(fastclip.data.__file__).parent
ABOVE = {"objectives", "training", "models", "runs", "evals", "train", "loss", "functional"}


def imported(tree: ast.AST) -> set[str]:
    """Modules of fastclip that are imported anywhere in a file, also for type checkers alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("fastclip.")}


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_data_import_nothing_that_imports_data(file):
    assert not imported(ast.parse(file.read_text())) & ABOVE


@pytest.mark.parametrize(
    "line", ["import fastclip.training.epochs", "from fastclip.objectives.base import Objective"]
)
def test_imports_are_found(line):
    tree = ast.parse(f"if TYPE_CHECKING:\n    {line}\n")
    assert imported(tree) & ABOVE
