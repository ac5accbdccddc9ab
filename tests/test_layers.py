"""Imports point one way: what each part of the package may know of the others."""

import ast
from pathlib import Path

import pytest

import fastclip

ROOT = Path(fastclip.__file__).parent
BASE = ("errors", "whole_files", "interrupts")
# Of each part, the parts that its files may import from; nothing else of the package.
KNOWS = {
    **dict.fromkeys(BASE, frozenset()),
    "kernels": set(),
    "comm": set(),
    "ops": {"kernels"},
    "functional": {"ops", "comm"},
    "loss": {"functional", "ops", "comm"},
    "data": {"comm", *BASE},
    "models": {*BASE},
    "evals": {"models", "data", "comm", *BASE},
    "objectives": {"loss", "ops", "models", "data", "comm", *BASE},
    # Sheets of pictures with their captions are drawn as evaluations draw them.
    "runs": {"objectives", "models", "data", "evals", "comm", *BASE},
    "training": {"runs", "objectives", "models", "data", "evals", "comm", *BASE},
    "train": {"training", *BASE},
}


def imported(tree: ast.AST) -> set[str]:
    """Parts of the package that are imported anywhere in a file, also for type checkers alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("fastclip.")}


def files_of(part: str) -> list[Path]:
    """The part's module, or all modules of its folder."""
    folder = ROOT.parent / part if part == "kernels" else ROOT / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{part}.py"]


@pytest.mark.parametrize("part", KNOWS)
def test_a_part_imports_those_below_it_alone(part):
    for file in files_of(part):
        beyond = imported(ast.parse(file.read_text())) - KNOWS[part] - {part}
        assert not beyond, f"{file.relative_to(ROOT.parent)} imports {', '.join(sorted(beyond))}"


def test_every_part_is_listed_and_none_knows_itself_by_way_of_others():
    parts = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__", "kernels", "csrc"} == KNOWS.keys() - {"kernels"}
    placed: set[str] = set()
    while placed != KNOWS.keys():
        new = {part for part, known in KNOWS.items() if known <= placed} - placed
        assert new, f"a circle among {sorted(KNOWS.keys() - placed)}"
        placed |= new


@pytest.mark.parametrize(
    "line", ["import fastclip.training.epochs", "from fastclip.training.base import Objective"]
)
def test_imports_are_found(line):
    assert imported(ast.parse(f"if TYPE_CHECKING:\n    {line}\n")) == {"training"}
