"""Imports point one way: what each part of the package, or room of the benchmarks, may know."""

import ast
from collections.abc import Collection, Mapping
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
BENCHMARKS = ROOT.parent / "benchmarks"
# Of each room of the benchmarks, the rooms that its files may import from, beside the package.
ROOMS: dict[str, set[str]] = {
    "command": set(),
    "paths": set(),
    "host": set(),
    "reporting": {"paths"},
    "losses": {"reporting", "host"},
    "training": {"reporting", "host", "paths"},
    "data": {"reporting", "host"},
    "recipes": {"reporting", "host", "paths", "command"},
    "gpu": {"training", "losses", "reporting", "host", "paths"},
    "run": {"reporting", "paths"},
    "conftest": {"gpu", "losses", "reporting", "host"},
}


def names_imported(tree: ast.AST) -> set[str]:
    """All that a file imports anywhere, also for type checkers alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(tree: ast.AST, package: str = "fastclip") -> set[str]:
    """Parts of the package that a file imports."""
    names = (name.split(".") for name in names_imported(tree))
    return {name[1] for name in names if name[0] == package and len(name) > 1}


def files_of(part: str, within: Path = ROOT) -> list[Path]:
    """The part's module, or all modules of its folder."""
    folder = ROOT.parent / part if part == "kernels" else within / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [within / f"{part}.py"]


def place(known: Mapping[str, Collection[str]]) -> None:
    """Fails where some of ``known`` know themselves by way of others."""
    placed: set[str] = set()
    while placed != known.keys():
        new = {name for name, others in known.items() if placed.issuperset(others)} - placed
        assert new, f"a circle among {sorted(known.keys() - placed)}"
        placed |= new


@pytest.mark.parametrize("part", KNOWS)
def test_a_part_imports_those_below_it_alone(part):
    for file in files_of(part):
        tree = ast.parse(file.read_text())
        beyond = imported(tree) - KNOWS[part] - {part} | imported(tree, "benchmarks")
        assert not beyond, f"{file.relative_to(ROOT.parent)} imports {', '.join(sorted(beyond))}"


def test_every_part_is_listed_and_none_knows_itself_by_way_of_others():
    parts = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__", "kernels", "csrc"} == KNOWS.keys() - {"kernels"}
    place(KNOWS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_benchmarks_imports_those_below_it_alone(room):
    for file in files_of(room, BENCHMARKS):
        beyond = imported(ast.parse(file.read_text()), "benchmarks") - ROOMS[room] - {room}
        assert not beyond, f"{file.relative_to(ROOT.parent)} imports {', '.join(sorted(beyond))}"


def test_every_room_of_the_benchmarks_is_listed_and_none_knows_itself_by_way_of_others():
    files = BENCHMARKS.rglob("*.py")
    assert {file.relative_to(BENCHMARKS).parts[0].removesuffix(".py") for file in files} == {
        "__init__",
        *ROOMS,
    }
    place(ROOMS)


def test_no_module_of_the_benchmarks_knows_itself_by_way_of_others():
    files = {
        ".".join(file.relative_to(ROOT.parent).with_suffix("").parts): file
        for file in BENCHMARKS.rglob("*.py")
        if file.name != "__init__.py"
    }
    known = {}
    for module, file in files.items():
        names = names_imported(ast.parse(file.read_text()))
        known[module] = (names | {name.rpartition(".")[0] for name in names}) & files.keys()
    assert "benchmarks.reporting.gpu_report" in known["benchmarks.reporting.results"]
    place(known)


@pytest.mark.parametrize(
    "line", ["import fastclip.training.epochs", "from fastclip.training.base import Objective"]
)
def test_imports_are_found(line):
    assert imported(ast.parse(f"if TYPE_CHECKING:\n    {line}\n")) == {"training"}
