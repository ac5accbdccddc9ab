import dataclasses

import pytest
from gpu_cases import Budget, groups
from gpu_targets import Target, targets
from made_up_record import made_up_record
from record import GpuRecord


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
