"""Tables and plots from a run's record."""

from pathlib import Path
from typing import Any

from benchmarks.reporting.operations import OPERATIONS
from benchmarks.reporting.record import Record
from benchmarks.reporting.tables import bullets, table

_TARGET_ROWS, _TARGET_WIDTH = 8192, 512
_MIB = 1 << 20


def markdown(record: Record) -> str:
    """Everything the run found, as Markdown that also reads well on a terminal."""
    parts = [_machine(record.machine)]
    for operation in OPERATIONS:
        entries = [e for e in record.losses if e["operation"] == operation]
        if entries:
            parts += [f"**{operation}**, forward and backward:", _loss_table(entries)]
    if record.losses:
        parts.append(_LEGEND)
        parts += [bullets("Targets", lines)] if (lines := targets(record)) else []
    if record.throughput:
        parts.append(_throughput(record.throughput))
    if record.step_memory:
        parts.append(_step_memory(record.step_memory))
    for title, reasons in (("Left out", record.skipped), ("Failed", record.failed)):
        if reasons:
            parts.append(bullets(title, [f"{name}: {why}" for name, why in reasons.items()]))
    return "\n\n".join(parts)


_LEGEND = (
    "`x 4 products` is the time over that of four bare products (X·Yᵀ twice, G·Y, Gᵀ·X) in the "
    "same dtype, run before every round; GFLOP/s count 3 products; memory is the peak of torch's "
    "CPU allocator above the inputs, outputs and gradients included; error is the worst relative "
    "error (in norm) among the loss and the gradients against float64."
)


def _machine(machine: dict[str, Any]) -> str:
    if not machine:
        return ""
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['threads']} threads, a bare fp32 product at "
        f"{machine['bare_product_gflops']:.0f} GFLOP/s; Python {machine['python']}, {versions}; "
        f"revision {machine['revision'] or 'unknown'}."
    )


def _loss_table(entries: list[dict[str, Any]]) -> str:
    header = ["shape", "dtype", "implementation", "ms", "x 4 products", "GFLOP/s", "MiB", "error"]
    rows = [
        [
            f"{e['rows']:,} x {e['columns']:,}, D = {e['width']}",
            e["dtype"],
            e["implementation"],
            f"{1e3 * e['seconds']:,.1f}",
            f"{e['bare_ratio']:.2f}",
            f"{e['gflops']:.0f}",
            f"{e['peak_mib']:,.0f}",
            f"{e['error']:.1e} ({e['error_of']})",
        ]
        for e in entries
    ]
    return table(header, rows, left=3)


def targets(record: Record) -> list[str]:
    """InfoNCE at n = N = 8,192, D = 512 beside what it is meant to reach."""

    def find(implementation: str, dtype: str) -> dict[str, Any] | None:
        for e in record.losses:
            shape = e["operation"], e["rows"], e["width"]
            if shape != ("InfoNCE", _TARGET_ROWS, _TARGET_WIDTH):
                continue
            if (e["implementation"], e["dtype"]) == (implementation, dtype):
                return e
        return None

    lines = []
    for dtype, of_products, of_peer in (("float32", 1.3, 0.55), ("bfloat16", None, 1.5)):
        ours, peer = find("fastclip", dtype), find("open_clip eager", dtype)
        case = f"InfoNCE, n = N = {_TARGET_ROWS:,}, D = {_TARGET_WIDTH}, {dtype}"
        if ours and of_products:
            lines.append(_verdict(case, ours["bare_ratio"], "four bare products", of_products))
        if ours and peer:
            # Both in units of the products that ran beside them, or a change in the machine's
            # speed between the two would count.
            ratio = ours["bare_ratio"] / peer["bare_ratio"]
            lines.append(_verdict(case, ratio, "open_clip eager", of_peer))
    return lines


def _verdict(case: str, found: float, unit: str, bar: float) -> str:
    return f"{case}: {found:.2f} x {unit}, at most {bar}: {'met' if found <= bar else 'MISSED'}"


def _throughput(found: dict[str, Any]) -> str:
    loops = found["loops"]
    rows = [
        [name, f"{loop['samples_per_second']:,.0f}", f"{loop['ratio']:.2f}"]
        for name, loop in loops.items()
    ]
    plain, alike = (loops[name]["ratio"] for name in ("open_clip", "open_clip, buffers kept"))
    return (
        f"**Training**, {found['model']}, batch {found['batch']:,}, ZeRO {found['zero_stage']}, "
        f"{found['precision']}, the same towers and batches, every loop in its own process and all "
        f"in turns ({found['rounds']} rounds of {found['steps']} steps each):\n\n"
        f"{table(['trainer', 'samples/s', 'fastclip / this'], rows, left=1)}\n\n"
        f"fastclip over open_clip's loop as it comes, median of the rounds' ratios: {plain:.2f} "
        f"(at least 1: {'met' if plain >= 1 else 'MISSED'}). Our trainer lets the C library keep "
        f"freed buffers for the next step, which open_clip's loop does not; with that setting in "
        f"both the ratio is {alike:.2f}."
    )


def _step_memory(entries: list[dict[str, Any]]) -> str:
    header = ["ZeRO", "processes", "grown at 1,024", "at 32,768", "features", "inputs", "ratio"]
    rows = [
        [
            str(e["zero_stage"]),
            str(e["processes"]),
            f"{e['small']['growth'] / _MIB:,.0f}",
            f"{e['large']['growth'] / _MIB:,.0f}",
            f"{e['large']['features'] / _MIB:,.0f}",
            f"{e['large']['inputs'] / _MIB:,.0f}",
            f"{e['ratio']:.2f}{'' if e['ratio'] <= 1.3 else ' MISSED'}",
        ]
        for e in entries
    ]
    return (
        "**One optimiser step**, peak resident MiB of a process above its size after model and "
        "optimiser were built; ratio = (grown at 32,768 - features - inputs) / grown at 1,024, at "
        f"most 1.3:\n\n{table(header, rows, left=0)}"
    )


def plot(record: Record, path: Path) -> bool:
    """Time and memory against N, one line an implementation; False where one size ran."""
    operations = [op for op in OPERATIONS if len(_sizes(record, op)) > 1]
    if not operations:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure, axes = plt.subplots(
        len(operations), 2, figsize=(11, 4.2 * len(operations)), squeeze=False, layout="constrained"
    )
    for row, operation in zip(axes, operations, strict=True):
        entries = [e for e in record.losses if e["operation"] == operation]
        entries = [e for e in entries if e["dtype"] == "float32" and e["rows"] == e["columns"]]
        names = list(dict.fromkeys(e["implementation"] for e in entries))
        sizes = _sizes(record, operation)
        for axis, key, factor, unit in (
            (row[0], "seconds", 1e3, "forward + backward, ms"),
            (row[1], "peak_mib", 1, "peak memory beyond inputs, MiB"),
        ):
            for name in names:
                line = sorted(
                    (e["rows"], factor * e[key]) for e in entries if e["implementation"] == name
                )
                axis.plot(
                    *zip(*line, strict=True), marker="o", lw=2.5 if name == "fastclip" else 1.2,
                    label=name,
                )  # fmt: skip
            axis.set(xscale="log", yscale="log", xlabel="n = N", ylabel=unit)
            axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            axis.set_title(f"{operation}, D = {entries[0]['width']}, float32")
        row[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _sizes(record: Record, operation: str) -> list[int]:
    return sorted(
        {
            e["rows"]
            for e in record.losses
            if e["operation"] == operation and e["dtype"] == "float32" and e["rows"] == e["columns"]
        }
    )
