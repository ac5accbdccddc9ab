"""The curves of a run."""

from matplotlib.figure import Figure

from fastclip.training import plots

FIGURES = ("zero_shot_accuracy", *(f"recall@{k}" for k in (1, 5, 10)), "exact_captions", "x", "y")


def rows(*steps: int) -> list[dict]:
    names = [f"{split}/{figure}" for split in ("seen", "held-out") for figure in FIGURES]
    values = {name: index / 20 for index, name in enumerate(names)}
    return [{"step": step, **values, "seen/perplexity": 3.5} for step in steps]


def test_every_share_has_a_look_of_its_own():
    names = plots.shares(rows(4, 8))
    assert len(names) == 14 and "seen/perplexity" not in names
    axes = Figure().subplots()
    plots.draw_shares(axes, rows(4, 8), names)
    looks = {(tuple(line.get_color()), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len(axes.lines) == 14
    assert axes.lines[0].get_label() == "seen: zero shot accuracy"
    assert list(axes.lines[13].get_xdata()) == [4, 8]
    assert list(axes.lines[13].get_ydata()) == [13 / 20] * 2


def test_an_evaluation_at_the_end_alone_stands_beside_the_loss(tmp_path):
    metrics = [{"step": step, "caption_loss": 1 / step} for step in range(1, 9)]
    sizes = []
    for validation in ([], rows(8)):
        plots.curves(metrics, validation, tmp_path / "loss.png")
        sizes.append((tmp_path / "loss.png").read_bytes()[20:24])  # the height of a PNG
    assert sizes[0] < sizes[1]
    assert plots.shares([{"step": 8}]) == []
