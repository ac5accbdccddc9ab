"""Train the small recipes from several seeds, hold them to their bars and record what they reach.

    python -m benchmarks.recipes.train [NAME ...] --seeds 0 1 2

A recipe is ``configs/recipes/small/NAME.yaml``: the trainer's flags, and in a second document what
its runs are held to: figures of results.json, how many times another figure they are (``over``: one
of the same split, or the best n-gram's ``ngram_word_perplexity``), or how far they are above
another (``minus``). Every run's outcome is stored as soon as it is known, so that a call that was
stopped goes on where it was (``--again`` starts over). Writes benchmarks/results/recipes.json and
the README's table of it; exits with code 1 where a bar was missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.command import seed_number
from benchmarks.paths import RESULTS
from benchmarks.recipes.runs import SMALL, Run, one_run, terms
from benchmarks.reporting.readme import README, update_readme

MARKERS = ("<!-- recipes:begin -->", "<!-- recipes:end -->")


def names() -> list[str]:
    """Recipes that are held to something."""
    return [path.stem for path in sorted(SMALL.glob("*.yaml")) if "figures" in terms(path.stem)]


def run_recipe(name: str, seed: int, known: dict, logs: Path) -> dict:
    """Outcomes of one recipe and seed: ``{"runs": {label: outcome}}``; those known are kept."""
    wanted = terms(name)
    found = known.setdefault(name, {}).setdefault(str(seed), {})
    flags: list[str] = []
    for flag, other in wanted.get("needs", {}).items() if "" not in found else ():
        folder = logs / f"{other}-{seed}"
        if not (folder / "model.safetensors").exists():
            print(f"{other}, seed {seed}, for {name}", flush=True)
            one_run(Run(other, seed, folder))
        flags += [f"--{flag}", str(folder)]
    for label, without in {"": [], **wanted.get("beside", {})}.items():
        if label not in found:
            print(" ".join([name, label, f"seed {seed}"]), flush=True)
            folder = logs / f"{name}{label and '-' + label}-{seed}"
            # What stands beside a recipe has neither its own flags nor what it needs.
            found[label] = one_run(Run(name, seed, folder, [] if label else flags, without))
            store_runs(known)
    return found


def store_runs(known: dict) -> None:
    """Keep the outcomes so far."""
    store = RESULTS / "recipe_runs.json"
    store.parent.mkdir(exist_ok=True)
    partial = store.with_suffix(".partial")
    partial.write_text(json.dumps(known, indent=1) + "\n")
    partial.replace(store)


def whole_seeds(name: str, known: dict) -> dict[str, dict]:
    """Outcomes by seed, of seeds whose runs are all known: a call may have been stopped between."""
    labels = {"", *terms(name).get("beside", {})}
    seeds = sorted(known.get(name, {}).items(), key=lambda item: int(item[0]))
    return {seed: runs for seed, runs in seeds if labels <= runs.keys()}


def figures(name: str, known: dict) -> list[dict]:
    """One entry a figure of a recipe, over all seeds that were run."""
    entries = []
    outcomes = whole_seeds(name, known)
    for term in terms(name)["figures"]:
        seeds, baselines, sizes = {}, {}, set()
        for seed, runs in outcomes.items():
            split = runs[""]["results"][term["split"]]
            value = split[term["figure"]] - (split[term["minus"]] if "minus" in term else 0)
            seeds[seed] = value / (split[term["over"]] if "over" in term else 1)
            sizes.add(split["pictures"])
            other = term.get("baseline", {}).get("run")
            if other is not None:
                baselines[seed] = runs[other]["results"][term["split"]][term["figure"]]
        baseline = term.get("baseline")
        if baselines:
            name_of = baseline["name"]
            baseline = {"name": name_of, "value": statistics.mean(baselines.values())}
            baseline["seeds"] = baselines
        every = [runs[""] for runs in outcomes.values()]
        entries.append(
            {
                "figure": title_of(term),
                "split": term["split"],
                "n": max(sizes),
                "higher_is_better": term.get("higher_is_better", True),
                "baseline": baseline,
                "bar": term.get("bar"),
                "seeds": seeds,
                "minutes": round(statistics.mean(run["minutes"] for run in every), 2),
                "steps": every[0]["steps"],
                "met": is_met(term, seeds, baselines),
            }
        )
    return entries


def title_of(term: dict) -> str:
    """What a figure is called in the record."""
    minus = f" - {term['minus']}" if "minus" in term else ""
    return term["figure"] + minus + (f" / {term['over']}" if "over" in term else "")


def is_met(term: dict, seeds: dict, baselines: dict) -> bool | None:
    """Whether every seed meets the bar; None where there is no bar.

    A bar of a figure with a run beside it is on the gain: ``every`` on each seed's, ``mean`` on
    their mean, which must also be at least ``errors`` of its standard errors.
    """
    bar = term.get("bar")
    if bar is None:
        return None
    if not isinstance(bar, dict):
        sign = 1 if term.get("higher_is_better", True) else -1
        return all(sign * value >= sign * bar for value in seeds.values())
    gains = [seeds[seed] - baselines[seed] for seed in seeds]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("inf")
    mean = statistics.mean(gains)
    return min(gains) > bar["every"] and mean >= max(bar["mean"], bar["errors"] * error)


def table(report: dict) -> str:
    """The record as Markdown: a row a figure."""
    lines = [
        "From `benchmarks/results/recipes.json`:",
        "",
        "| recipe | figure | split | n | seeds | baseline | bar | minutes in steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entries in report.items():
        for entry in entries:
            is_ratio = " / " in entry["figure"]
            shown = "{:.2f}".format if is_ratio else "{:.1%}".format
            values = ", ".join(map(shown, entry["seeds"].values()))
            base, bar = entry["baseline"], entry["bar"]
            told = f"{base['name']}: {base['value']:.1%}" if base else ""
            if isinstance(bar, dict):
                bar = f"gain > {bar['every']:.0%} each, mean at least {bar['mean']:.0%}"
            elif bar is not None:
                bar = f"{bar:g}" if is_ratio else f"{100 * bar:.3g}%"
            met = {None: "", True: ", met", False: ", missed"}[entry["met"]]
            what = entry["figure"].replace("_", " ")
            lines.append(
                f"| {name} | {what} | {entry['split']} | {entry['n']:,} | {values} | {told} "
                f"| {bar or ''}{met} | {entry['minutes']:.1f} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them where left out")
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="run anew what is recorded")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in names()]
    if unknown:
        parser.error(f"no recipe {unknown[0]!r}; there are {', '.join(names())}")
    store = RESULTS / "recipe_runs.json"
    known = json.loads(store.read_text()) if store.exists() else {}
    chosen = args.names or names()
    if args.again:
        for name in chosen:
            known.pop(name, None)
    with tempfile.TemporaryDirectory() as logs:
        for name in chosen:
            for seed in args.seeds:
                run_recipe(name, seed, known, Path(logs))
    report = {name: figures(name, known) for name in names() if whole_seeds(name, known)}
    (RESULTS / "recipes.json").write_text(json.dumps(report, indent=2) + "\n")
    update_readme(README, table(report), MARKERS)
    missed = [
        f"{name}: {entry['figure']} on {entry['split']}"
        for name in chosen
        for entry in report[name]
        if entry["met"] is False
    ]
    for line in missed:
        print(f"bar missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
