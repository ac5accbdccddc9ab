import dataclasses
import math

import pytest
from made_up_record import made_up_record

from benchmarks.gpu.cases import Budget, groups
from benchmarks.reporting.gpu_targets import Target, targets
from benchmarks.reporting.record import GpuRecord, worst


def test_every_target_is_measured_by_some_group(made_up) -> None:
    found = targets(made_up)
    assert len(found) > 50
    assert {str(t) for t in found if t.verdict != "met"} == set()
    assert len({t.name for t in found}) == len(found)


def test_an_empty_record_measures_nothing() -> None:
    assert {t.verdict for t in targets(GpuRecord())} == {"not measured"}


def test_tiny_groups_measure_no_target() -> None:
    assert {t.verdict for t in targets(made_up_record(tiny=True))} == {"not measured"}


@pytest.mark.parametrize(
    ("measured", "at_least", "verdict"),
    [(2.0, False, "met"), (2.1, False, "MISSED"), (2.0, True, "met"), (1.9, True, "MISSED")],
)
def test_verdict(measured: float, at_least: bool, verdict: str) -> None:
    target = Target("a case", measured, 2.0, at_least)
    assert target.verdict == verdict
    assert str(target).endswith(f"2: {verdict}")


def test_nan_is_no_success() -> None:
    assert Target("a case", float("nan"), 2.0).verdict == "MISSED"
    assert Target("a case", float("nan"), 2.0, at_least=True).verdict == "MISSED"


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ("losses", "InfoNCE in fp32, N = 32,768, D = 512: relative error"),
        ("large", "InfoNCE, N = 1,048,576, D = 512: error on sampled rows"),
        ("precision", "bf16 InfoNCE at scale 100: gradient error over that of the exact gradient"),
        ("precision", "bf16 InfoNCE at scale 100: open_clip's gradient error over ours"),
    ],
)
def test_nan_in_the_second_error_misses(made_up, found: str, name: str) -> None:
    ours = [entry for entry in getattr(made_up, found) if entry["ours"]]
    if found == "precision":
        # All of ours count here, and the first has no NaN.
        compiled = [e for e in ours if e["scale"] == 100 and "torch" not in e["implementation"]]
        ours = compiled[1:2]
    for entry in ours:
        entry["errors"]["text"] = float("nan")
    (target,) = [t for t in targets(made_up) if t.name.startswith(name)]
    assert target.verdict == "MISSED"


def test_worst_is_nan_wherever_it_stands() -> None:
    assert math.isnan(worst([1.0, float("nan"), 2.0]))
    assert math.isnan(worst([float("nan"), float("inf")]))
    assert worst([1.0, 3.0, 2.0]) == 3.0


@pytest.mark.parametrize(
    ("communication", "idle", "verdict"),
    [(1e-3, 9e-6, "met"), (1e-3, 2e-5, "MISSED"), (4e-3, 2.2e-3, "met"), (4e-3, 3e-3, "MISSED")],
)
def test_idle_time_beyond_the_unavoidable_misses(made_up, communication, idle, verdict) -> None:
    for entry in made_up.schedule:
        entry |= {"compute_seconds": 2e-3, "communication_seconds": communication}
        entry |= {"idle_seconds": idle, "spread_seconds": 1e-5}
    found = [t for t in targets(made_up) if t.name.endswith("idle ms")]
    assert len(found) == 3 and {t.verdict for t in found} == {verdict}


def test_the_fastest_liger_counts_and_is_named(made_up) -> None:
    def of_liger() -> list[Target]:
        return [t for t in targets(made_up) if t.name.endswith("x speed of Liger")]

    for entry in made_up.losses:
        if entry["implementation"] == "Liger, CuTe":
            entry["b3_ratio"] = 0.6
    assert len(of_liger()) == 4
    assert {(t.measured, t.verdict) for t in of_liger()} == {(0.5, "MISSED")}
    assert all(t.by.endswith("; Liger, CuTe") for t in of_liger())
    made_up.losses = [e for e in made_up.losses if not e["implementation"].startswith("Liger")]
    assert {t.verdict for t in of_liger()} == {"not measured"}


def test_the_fastest_of_ours_counts_and_is_named(made_up) -> None:
    for entry in made_up.losses:
        if entry["implementation"] == "fastclip cuda, 256 MiB":
            entry["b3_ratio"] = 1.1
        elif entry["ours"]:
            entry["b3_ratio"] = 3.0
    first = targets(made_up)[0]
    assert (first.measured, first.by) == (1.1, "cuda, 256 MiB")


def test_groups_have_names_of_their_own() -> None:
    names = [group.name for group in groups()]
    assert len(set(names)) == len(names)


def test_tiny_groups_keep_kind_and_ranks() -> None:
    for group, tiny in zip(groups(), groups(tiny=True), strict=True):
        assert tiny.kind == group.kind
        assert tiny.problem.columns * tiny.problem.width <= 1024 * 256
        same = {"operation", "dtype", "ranks", "scale", "noise", "device"}
        assert {n: getattr(tiny.problem, n) for n in same} == {
            n: value for n, value in dataclasses.asdict(group.problem).items() if n in same
        }


def test_budget_starts_nothing_new_when_used_up() -> None:
    now = [100.0]
    budget = Budget(10.0, now=lambda: now[0])
    assert budget.allows("first")
    now[0] = 109.9
    assert budget.allows("second")
    now[0] = 110.0
    assert budget.allows("first")
    assert not budget.allows("third")
    assert budget.started == {"first", "second"}


def test_no_budget_allows_everything() -> None:
    now = [0.0]
    budget = Budget(now=lambda: now[0])
    now[0] = 1e9
    assert budget.allows("anything")
