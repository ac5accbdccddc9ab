"""What the GPU part is meant to reach, and whether a record says that it did.

Each target has a name, a bound and a measured value; one whose measurement is missing says so. Of
several backends of ours with the same workspace the fastest counts, which the value names.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.reporting.operations import INFONCE, LINEAR, SIGLIP
from benchmarks.reporting.record import GpuRecord, badness, worst

Entry = dict[str, Any]

_BF16, _FP32 = "bfloat16", "float32"
LINEAR_SHAPES = ((4096, 4096, 128_256), (16_384, 1024, 49_408), (14_848, 1024, 10_000))
LINEAR_SHAPES += ((131_072, 768, 30_522),)
_TORCH = ("torch eager", "torch compiled", "torch linear_cross_entropy, chunked")
_INFONCE_PEERS = {
    "open_clip eager": 3.0,
    "open_clip compiled": 2.0,
    "memeff": 2.0,
    "Inf-CL": 10.0,
}


@dataclass(frozen=True)
class Target:
    """``bound`` is the most that ``measured`` may be, or with ``at_least`` the least."""

    name: str
    measured: float | None
    bound: float
    at_least: bool = False
    by: str = ""

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        met = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        return "met" if met else "MISSED"

    def to_plain(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}

    def __str__(self) -> str:
        bound = f"at {'least' if self.at_least else 'most'} {_number(self.bound)}"
        if self.measured is None:
            return f"{self.name}: {bound}: not measured"
        by = f" ({self.by})" if self.by else ""
        return f"{self.name}: {_number(self.measured)}{by}, {bound}: {self.verdict}"


def _number(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def targets(record: GpuRecord) -> list[Target]:
    """All of them, in the order of the shapes."""
    return [
        *_infonce(record),
        *_over_ranks(record),
        *_siglip(record),
        *_fp32(record),
        *_linear(record),
        *_large(record),
        *_precision(record),
        *_schedule(record),
    ]


def _find(record: GpuRecord, operation: str, rows: int, width: int, **more) -> list[Entry]:
    wanted = {"operation": operation, "rows": rows, "width": width, "dtype": _BF16, "ranks": 1}
    wanted |= more
    return [e for e in record.losses if all(e[key] == value for key, value in wanted.items())]


def _ours(entries: list[Entry], workspace: int | str = 256) -> Entry | None:
    found = [e for e in entries if e["ours"] and e["workspace"] == workspace]
    return min(found, key=lambda e: e["b3_ratio"], default=None)


def _peer(entries: list[Entry], name: str) -> Entry | None:
    return next((e for e in entries if e["implementation"] == name), None)


def _fastest(entries: list[Entry], library: str) -> Entry | None:
    """Of the modes of a library: those named ``library, mode``."""
    modes = [e for e in entries if e["implementation"].startswith(f"{library}, ")]
    return min(modes, key=lambda e: e["b3_ratio"], default=None)


def _short(ours: Entry | None) -> str:
    return ours["implementation"].removeprefix("fastclip ") if ours else ""


def _of_b3(entries: list[Entry], case: str) -> Iterator[Target]:
    for workspace, words, bound in ((256, "256 MiB", 1.6), ("kept", "logits kept", 1.35)):
        ours = _ours(entries, workspace)
        measured = ours["b3_ratio"] if ours else None
        yield Target(f"{case}, {words}: x B3", measured, bound, by=_short(ours))


def speed_up(entries: list[Entry], name: str) -> float | None:
    """How many times as fast ours is as the peer, each in units of the products beside it."""
    ours, peer = _ours(entries), _peer(entries, name)
    return peer["b3_ratio"] / ours["b3_ratio"] if ours and peer else None


def _faster(entries: list[Entry], case: str, peers: dict[str, float]) -> Iterator[Target]:
    for name, bound in peers.items():
        by = _short(_ours(entries))
        yield Target(f"{case}: x speed of {name}", speed_up(entries, name), bound, True, by)


def _infonce(record: GpuRecord) -> Iterator[Target]:
    for n in (32_768, 65_536):
        for width in (512, 768, 1024):
            entries = _find(record, INFONCE, n, width)
            yield from _of_b3(entries, f"InfoNCE, N = {n:,}, D = {width}")
    entries = _find(record, INFONCE, 32_768, 512)
    case = "InfoNCE, N = 32,768, D = 512"
    yield from _faster(entries, case, _INFONCE_PEERS)
    eager = _peer(entries, "open_clip eager")
    for workspace, least in ((256, 20.0), (64, 40.0)):
        ours = _ours(entries, workspace)
        measured = eager["peak_mib"] / ours["peak_mib"] if ours and eager else None
        name = f"{case}, {workspace} MiB: open_clip eager's memory over ours"
        yield Target(name, measured, least, True, _short(ours))


def _over_ranks(record: GpuRecord) -> Iterator[Target]:
    entries = _find(record, INFONCE, 4096, 512, ranks=8)
    case = "InfoNCE, 4,096 x 32,768, D = 512"
    yield from _of_b3(entries, case)
    yield from _faster(entries, case, _INFONCE_PEERS)


def _siglip(record: GpuRecord) -> Iterator[Target]:
    entries = _find(record, SIGLIP, 32_768, 512)
    yield from _faster(entries, "SigLIP, N = 32,768, D = 512", {"siglip-kernel": 1.2})


def _fp32(record: GpuRecord) -> Iterator[Target]:
    entries = _find(record, INFONCE, 32_768, 512, dtype=_FP32)
    ours = _ours(entries)
    case = "InfoNCE in fp32, N = 32,768, D = 512"
    measured = worst(ours["errors"].values()) if ours else None
    yield Target(f"{case}: relative error", measured, 1e-5, by=_short(ours))
    yield from _faster(entries, case, {"open_clip eager": 1.4})


def _linear(record: GpuRecord) -> Iterator[Target]:
    """Of Liger, which has several modes, the fastest at the shape counts, and is named."""
    for tokens, width, vocabulary in LINEAR_SHAPES:
        entries = _find(record, LINEAR, tokens, width, columns=vocabulary)
        case = f"linear cross entropy, {tokens:,} x {vocabulary:,}, D = {width:,}"
        liger = _fastest(entries, "Liger")
        mode = liger["implementation"] if liger else "Liger"
        measured = speed_up(entries, mode)
        by = f"{_short(_ours(entries))}; {mode}" if measured is not None else ""
        yield Target(f"{case}: x speed of Liger", measured, 1.0, True, by)
        peers = dict.fromkeys(["cut-cross-entropy, exact", *_TORCH], 1.0)
        yield from _faster(entries, case, {**peers, "QuACK": 1 / 1.1})


def _large(record: GpuRecord) -> Iterator[Target]:
    found = [e for e in record.large if (e["rows"], e["width"]) == (1_048_576, 512)]
    ours = min(found, key=lambda e: e["seconds"], default=None)
    case = "InfoNCE, N = 1,048,576, D = 512"
    by = _short(ours)
    error = worst(ours["errors"].values()) if ours else None
    yield Target(f"{case}: error on sampled rows", error, 1e-2, by=by)
    yield Target(f"{case}: MiB", ours["peak_mib"] if ours else None, 8192, by=by)


def _precision(record: GpuRecord) -> Iterator[Target]:
    for scale in (100.0, 1 / 0.07):
        entries = [e for e in record.precision if e["rows"] == 32_768]
        entries = [e for e in entries if abs(e["scale"] - scale) < 1e-3]
        ours = [e for e in entries if e["ours"] and "torch" not in e["implementation"]]
        case = f"bf16 InfoNCE at scale {scale:.3g}"
        over = {e["implementation"]: _over_rounding(e) for e in ours}
        most = max(over, key=lambda name: badness(over[name]), default=None)
        name = f"{case}: gradient error over that of the exact gradient rounded"
        yield Target(name, over[most] if most else None, 1.1, by=most or "")
        if scale == 100:
            peer = _peer(entries, "open_clip eager")
            errors = [_feature_error(e) for e in ours]
            measured = _feature_error(peer) / worst(errors) if peer and errors else None
            yield Target(f"{case}: open_clip's gradient error over ours", measured, 5.0, True)


def _over_rounding(entry: Entry) -> float:
    return worst(entry["errors"][name] / rounding for name, rounding in entry["rounding"].items())


def _feature_error(entry: Entry) -> float:
    return worst(entry["errors"][name] for name in entry["rounding"])


def _schedule(record: GpuRecord) -> Iterator[Target]:
    """Idle time beyond what no schedule avoids: 1.1 times what communication takes longer than
    compute, and the spread of equal steps, below which idle time is not told from noise."""
    for width in (512, 768, 1024):
        found = [e for e in record.schedule if (e["rows"], e["width"]) == (4096, width)]
        found = [e for e in found if e["workspace"] == 256 and e["delayed"]]
        ours = min(found, key=lambda e: e["seconds"], default=None)
        name = f"a rank of 8, 4,096 x 32,768, D = {width}: idle ms"
        bound = 1e3 * _unavoidable(ours) if ours else 0.0
        yield Target(name, 1e3 * ours["idle_seconds"] if ours else None, bound, by=_short(ours))


def _unavoidable(entry: Entry) -> float:
    excess = entry["communication_seconds"] - entry["compute_seconds"]
    return 1.1 * max(0.0, excess) + entry["spread_seconds"]
