"""Tables and plots from a record of the GPU part; ``results`` puts them into the README."""

import json
from pathlib import Path
from typing import Any

from benchmarks.reporting.gpu_targets import Entry, speed_up, targets
from benchmarks.reporting.operations import OPERATIONS
from benchmarks.reporting.record import GpuRecord, badness, worst
from benchmarks.reporting.tables import bullets, table


def write_record(record: GpuRecord, path: Path) -> None:
    """The record with its targets, whole or not at all."""
    record.targets = [target.to_plain() for target in targets(record)]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(record.to_plain(), indent=1) + "\n")
    unfinished.replace(path)


def markdown(record: GpuRecord) -> str:
    """Everything the run found, as Markdown that also reads well on a terminal."""
    parts = [_machine(record.machine)] if record.machine else []
    if record.accuracy:
        parts.append(_accuracy(record.accuracy))
    for operation in OPERATIONS:
        entries = [e for e in record.losses if e["operation"] == operation]
        if entries:
            parts += [f"**{operation}**, forward and backward:", _losses(entries)]
    if record.losses:
        parts.append(_LEGEND)
        if ratios := _speed_ups(record):
            parts += ["Times as fast as each peer, with 256 MiB of workspace:", ratios]
    if record.large:
        parts += ["**A million pairs**, errors on sampled rows:", _large(record.large)]
    if record.precision:
        parts += ["**Gradient error in bf16**:", _precision(record.precision)]
    if delayed := [e for e in record.schedule if e["delayed"]]:
        parts += [_SCHEDULE, _schedule(delayed)]
    if record.train_step:
        parts += [_train_step(record.train_step)]
    parts.append(bullets("Targets", [str(target) for target in targets(record)]))
    reasons = (("Left out", record.skipped), ("Failed", record.failed), ("Not run", record.not_run))
    for title, found in reasons:
        if found:
            parts.append(bullets(title, [f"{name}: {why}" for name, why in found.items()]))
    return "\n\n".join(parts)


_LEGEND = (
    "`x B3` is the time over that of X·Yᵀ, G·Y and Gᵀ·X by torch, whole matrices in the inputs' "
    "dtype, run before every round; TFLOP/s count these three products; MiB is the peak beyond "
    "inputs and gradients; error is the worst relative error (in norm) among the loss and the "
    "gradients against float64. Inputs rotate through sets that overflow the L2 cache."
)
_SCHEDULE = (
    "**One rank of eight**, simulated on one GPU: collectives last as long as their bytes do at "
    "400 GB/s; idle is what the step takes longer than with collectives that last no time, spread "
    "the interquartile range of the latter's time:"
)


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    product = f"a bare bf16 product at {machine['product_tflops']:.0f} TFLOP/s"
    return (
        f"{machine['gpu']}, driver {machine['driver']}, CUDA {machine['cuda']}, {product}; "
        f"Python {machine['python']}, {versions}; revision {machine['revision'] or 'unknown'}."
    )


def _accuracy(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{n} {word}" for word, n in found["outcomes"].items()) or "none ran"
    why = f" ({found['left_out']})" if "left_out" in found else ""
    return f"Accuracy tests on this GPU: {counts}{why}."


def _case(e: Entry) -> str:
    ranks = f", a rank of {e['ranks']}" if e.get("ranks", 1) > 1 else ""
    return f"{e['rows']:,} x {e['columns']:,}, D = {e['width']:,}{ranks}"


def _losses(entries: list[Entry]) -> str:
    header = ["shape", "dtype", "implementation", "ms", "x B3", "TFLOP/s", "MiB", "error"]
    rows = [
        [
            _case(e),
            e["dtype"],
            e["implementation"],
            f"{1e3 * e['seconds']:,.2f}",
            f"{e['b3_ratio']:.2f}",
            f"{e['tflops_3u']:.0f}",
            f"{e['peak_mib']:,.0f}",
            _worst(e["errors"]),
        ]
        for e in entries
    ]
    return table(header, rows, left=3)


def _worst(errors: dict[str, float]) -> str:
    name = max(errors, key=lambda name: badness(errors[name]))
    return f"{errors[name]:.1e} ({name})"


def _speed_ups(record: GpuRecord) -> str:
    shapes: dict[tuple, list[Entry]] = {}
    for e in record.losses:
        shapes.setdefault((e["operation"], _case(e), e["dtype"]), []).append(e)
    rows = []
    for (operation, case, dtype), entries in shapes.items():
        for e in entries:
            ratio = None if e["ours"] else speed_up(entries, e["implementation"])
            if ratio is not None:
                rows.append([operation, case, dtype, e["implementation"], f"{ratio:.2f}"])
    header = ["operation", "shape", "dtype", "peer", "times as fast"]
    return table(header, rows, left=4) if rows else ""


def _large(entries: list[Entry]) -> str:
    header = ["N", "D", "implementation", "s", "TFLOP/s", "MiB", "error"]
    rows = [
        [
            f"{e['rows']:,}",
            str(e["width"]),
            e["implementation"],
            f"{e['seconds']:.2f}",
            f"{e['tflops_3u']:.0f}",
            f"{e['peak_mib']:,.0f}",
            _worst(e["errors"]),
        ]
        for e in entries
    ]
    return table(header, rows, left=3)


def _precision(entries: list[Entry]) -> str:
    header = ["scale", "implementation", "image", "text", "scale's", "exact, rounded"]
    rows = [
        [
            f"{e['scale']:.3g}",
            e["implementation"],
            *(f"{e['errors'][name]:.1e}" for name in ("image", "text", "scale")),
            f"{worst(e['rounding'].values()):.1e}",
        ]
        for e in entries
    ]
    return table(header, rows, left=2)


def _schedule(entries: list[Entry]) -> str:
    whats = ("compute", "communication", "idle", "spread")
    header = ["shape", "implementation", "MB sent", *(f"{what} ms" for what in whats)]
    rows = [
        [
            _case(e),
            e["implementation"],
            f"{e['sent_bytes'] / 1e6:,.0f}",
            *(f"{1e3 * e[f'{what}_seconds']:.2f}" for what in whats),
        ]
        for e in entries
    ]
    return table(header, rows, left=2)


def _train_step(found: dict[str, Any]) -> str:
    header = ["trainer", "batch", "micro-batch", "images/s", "peak GiB"]
    rows = [
        [
            e["trainer"],
            f"{e['batch']:,}",
            f"{e['micro_batch']:,}",
            f"{e['images_per_second']:,.0f}",
            f"{e['peak_bytes'] / 2**30:.1f}",
        ]
        for e in found["runs"]
    ]
    left_out = [f"Training step, {name}: {why}." for name, why in found["left_out"].items()]
    if not rows:
        return "\n\n".join(left_out)
    title = f"**Training step**, {found['model']}, {found['precision']}, random pictures, one GPU:"
    return "\n\n".join([title, table(header, rows, left=1), *left_out])


def plot(record: GpuRecord, path: Path) -> bool:
    """InfoNCE in bf16: time and memory against N, ratio to B3 against D; False if too few sizes."""
    entries = [
        e
        for e in record.losses
        if (e["operation"], e["dtype"], e["ranks"]) == ("InfoNCE", "bfloat16", 1)
    ]
    entries += [e for e in record.large if e["width"] == 512]
    by_n = [e for e in entries if e["width"] == 512]
    by_width = [e for e in entries if e["rows"] == 32_768 and "b3_ratio" in e]
    panels = [
        (by_n, "rows", "seconds", 1e3, "N", "forward + backward, ms", "log"),
        (by_n, "rows", "peak_mib", 1, "N", "peak beyond inputs and gradients, MiB", "log"),
        (by_width, "width", "b3_ratio", 1, "D", "time over three bare products", "linear"),
    ]
    if all(len({e[x] for e in found}) < 2 for found, x, *_ in panels):
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(15, 4.6), layout="constrained")
    for axis, (found, x, y, factor, x_label, y_label, y_scale) in zip(axes, panels, strict=True):
        for name in dict.fromkeys(e["implementation"] for e in found):
            line = sorted((e[x], factor * e[y]) for e in found if e["implementation"] == name)
            width = 2.5 if name.startswith("fastclip") else 1.2
            axis.plot(*zip(*line, strict=True), marker="o", lw=width, label=name)
        ticks = sorted({e[x] for e in found})
        axis.set(xscale="log", yscale=y_scale, xlabel=x_label, ylabel=y_label)
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_title("InfoNCE, D = 512, bfloat16")
    axes[1].set_title("InfoNCE, D = 512, bfloat16")
    axes[2].set_title("InfoNCE, N = 32,768, bfloat16")
    axes[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True
