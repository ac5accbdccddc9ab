"""The recipes' record: what is run, with which flags, and when a bar is met."""

import json

import pytest
import yaml

from benchmarks.recipes import runs as recipe_runs
from benchmarks.recipes import train as recipes
from benchmarks.recipes.runs import Run
from fastclip.training.options.recipe import load_recipe

SPLITS = {
    "val-seen": {"pictures": 3, "recall@10": 0.5},
    "val-unseen": {"pictures": 7, "recall@10": 0.5},
}


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Runs that were asked for; each ends at once, a student alone 4 points lower."""
    runs = []

    def one_run(run):
        runs.append(run)
        lower = 0.04 if run.without else 0.0
        found = {n: {**s, "recall@10": s["recall@10"] - lower} for n, s in SPLITS.items()}
        return {"results": found, "steps": 9, "minutes": 1.5}

    monkeypatch.setattr(recipes, "one_run", one_run)
    monkeypatch.setattr(recipes, "RESULTS", tmp_path / "results")
    return runs


@pytest.mark.parametrize("path", sorted(recipe_runs.SMALL.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_small_recipe_reads(path):
    assert load_recipe(path)
    terms = recipe_runs.terms(path.stem)
    assert terms.keys() <= {"data", "encoders", "needs", "beside", "figures"}
    for other in terms.get("needs", {}).values():
        assert (recipe_runs.SMALL / f"{other}.yaml").exists()
    for term in terms.get("figures", []):
        assert term.keys() <= {
            *("figure", "over", "minus", "split", "bar", "baseline", "higher_is_better")
        }


def test_a_student_runs_with_its_teacher_and_beside_itself_alone(started, tmp_path):
    known: dict = {}
    for seed in (0, 1):
        recipes.run_recipe("distill", seed, known, tmp_path)
    teacher, student, alone = started[:3]
    assert teacher == Run("distill_teacher", 0, tmp_path / "distill_teacher-0")
    assert student.flags == ["--teacher", str(teacher.folder)] and not student.without
    assert alone.without == ["objective", "feature_weight"] and not alone.flags
    assert len(started) == 6
    recipes.run_recipe("distill", 1, known, tmp_path)
    assert len(started) == 6  # what is known is not run again
    stored = json.loads((tmp_path / "results" / "recipe_runs.json").read_text())
    assert stored == known
    unseen, _ = recipes.figures("distill", known)
    assert unseen["seeds"] == {"0": 0.5, "1": 0.5} and unseen["n"] == 7
    assert unseen["baseline"]["seeds"] == {"0": 0.46, "1": 0.46}
    assert unseen["met"] and (unseen["steps"], unseen["minutes"]) == (9, 1.5)
    assert "| distill | recall@10 | val-unseen | 7 | 50.0%, 50.0% |" in recipes.table(
        {"distill": [unseen]}
    )


def test_a_seed_that_was_stopped_between_its_runs_is_not_reported(started, tmp_path):
    known: dict = {}
    for seed in (0, 1):
        recipes.run_recipe("distill", seed, known, tmp_path)
    del known["distill"]["1"]["alone"]
    assert recipes.figures("distill", known)[0]["seeds"] == {"0": 0.5}
    del known["distill"]["0"]["alone"]
    assert recipes.whole_seeds("distill", known) == {}
    assert recipes.whole_seeds("captioning", known) == {}


def test_what_is_left_out_of_a_recipe_is_not_in_the_copy(tmp_path):
    run = Run("distill", 0, tmp_path / "alone", without=["objective", "feature_weight"])
    whole = next(yaml.safe_load_all((recipe_runs.SMALL / "distill.yaml").read_text()))
    left = load_recipe(run.recipe)
    assert whole.keys() - left.keys() == {"objective", "feature_weight"}


def test_real_pictures_are_taken_from_the_folder_that_is_named(monkeypatch):
    monkeypatch.setenv(recipe_runs.DATA, "/pictures")
    flags = recipe_runs.data_flags("distill")
    assert flags[:2] == ["--train-data", "/pictures/emoji/train-{0000..0004}.tar"]
    monkeypatch.delenv(recipe_runs.DATA)
    with pytest.raises(SystemExit, match=f"name their folder in {recipe_runs.DATA}"):
        recipe_runs.data_flags("distill")
    assert recipe_runs.data_flags("captioning") == []


def test_a_figure_is_held_to_another(started, tmp_path, monkeypatch):
    term = {"figure": "recall@10", "over": "pictures", "split": "val-seen", "bar": 0.2}
    monkeypatch.setattr(recipes, "terms", lambda name: {"figures": [term]})
    known: dict = {}
    recipes.run_recipe("any", 0, known, tmp_path)
    [entry] = recipes.figures("any", known)
    assert entry["figure"] == "recall@10 / pictures" and not entry["met"]
    assert entry["seeds"] == {"0": pytest.approx(0.5 / 3)}
    row = "| any | recall@10 / pictures | val-seen | 3 | 0.17 |  | 0.2, missed |"
    assert row in recipes.table({"any": [entry]})


def test_a_figure_is_held_to_its_distance_from_another(started, tmp_path, monkeypatch):
    term = {"figure": "recall@10", "minus": "blind", "split": "val-seen", "bar": 0.3}
    monkeypatch.setattr(recipes, "terms", lambda name: {"figures": [term]})
    monkeypatch.setitem(SPLITS["val-seen"], "blind", 0.25)
    known: dict = {}
    recipes.run_recipe("any", 0, known, tmp_path)
    [entry] = recipes.figures("any", known)
    assert entry["seeds"] == {"0": 0.25} and entry["met"] is False
    row = "| any | recall@10 - blind | val-seen | 3 | 25.0% |  | 30%, missed |"
    assert row in recipes.table({"any": [entry]})


def test_the_best_ngram_stands_among_a_runs_figures(tmp_path, monkeypatch):
    monkeypatch.setenv(recipe_runs.DATA, "/pictures")
    asked = []

    def of_run(*args):
        asked.append(args)
        return {"val-seen": (9.5, "order 2"), "val-unseen": (90.0, "order 1")}

    monkeypatch.setattr(recipe_runs.ngram_baseline, "of_run", of_run)
    found = {"val-seen": {"word_perplexity": 7.0}, "val-unseen": {"word_perplexity": 70.0}}
    same = recipe_runs.with_ngram(Run("captioning", 0, tmp_path), found)
    assert same is found and not asked
    named = recipe_runs.with_ngram(Run("virtex_captioning_emoji", 0, tmp_path), found)
    assert named["val-unseen"] == {"word_perplexity": 70.0, "ngram_word_perplexity": 90.0}
    [(folder, train, splits)] = asked
    assert folder == tmp_path and train == "/pictures/emoji/train-{0000..0004}.tar"
    assert splits["val-seen"] == "/pictures/emoji/val-seen.tar"


@pytest.mark.parametrize(
    ("bar", "higher", "seeds", "baselines", "met"),
    [
        (None, True, {"0": 0.1}, {}, None),
        (0.5, True, {"0": 0.5, "1": 0.9}, {}, True),
        (0.5, True, {"0": 0.49, "1": 0.9}, {}, False),
        (0.5, False, {"0": 0.5, "1": 0.1}, {}, True),
        (0.5, False, {"0": 0.51, "1": 0.1}, {}, False),
        ({"every": 0.0, "mean": 0.03, "errors": 2}, True, {"0": 1.0}, {"0": 0.5}, False),
        ({"every": 0.0, "mean": 0.03, "errors": 2}, True, [0.54, 0.55], [0.5, 0.5], True),
        ({"every": 0.0, "mean": 0.03, "errors": 2}, True, [0.49, 0.6], [0.5, 0.5], False),
        ({"every": 0.0, "mean": 0.03, "errors": 2}, True, [0.52, 0.52], [0.5, 0.5], False),
        ({"every": 0.0, "mean": 0.03, "errors": 2}, True, [0.501, 0.6], [0.5, 0.5], False),
    ],
)
def test_bars(bar, higher, seeds, baselines, met):
    if isinstance(seeds, list):
        seeds, baselines = ({str(k): v for k, v in enumerate(x)} for x in (seeds, baselines))
    assert recipes.is_met({"bar": bar, "higher_is_better": higher}, seeds, baselines) is met
