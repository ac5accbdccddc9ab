"""A record of no machine: what the reports are tried on."""

from benchmarks.gpu.cases import Group, groups
from benchmarks.losses.peers import Peer, peers
from benchmarks.reporting.record import GpuRecord

# In units of the bare products; a peer takes what makes ours meet every ratio.
OURS, THEIRS = 1.2, 20.0


def made_up_record(tiny: bool = False) -> GpuRecord:
    record = GpuRecord(
        machine={
            "gpu": "no GPU: made up",
            "driver": None,
            "cuda": None,
            "python": "0",
            "revision": "made-up",
            "l2_mib": 0.0,
            "product_tflops": 1.0,
            "versions": {"torch": "0"},
        }
    )
    for group in groups(tiny):
        problem = group.problem
        for peer in peers(problem.operation, "cuda", problem.ranks, problem.dtype):
            _add(record, group, peer)
        record.groups.append(group.name)
    return record


def _add(record: GpuRecord, group: Group, peer: Peer) -> None:
    kind, problem = group.kind, group.problem
    shape = {
        "case": group.case(peer),
        "implementation": peer.name,
        "ours": peer.ours,
        "workspace": peer.workspace,
        "rows": problem.rows,
        "columns": problem.columns,
        "width": problem.width,
        "dtype": problem.dtype_name,
        "ranks": problem.ranks,
    }
    ratio, fine, coarse = (OURS if peer.ours else THEIRS), 1e-6, 1e-2
    errors = dict.fromkeys(("loss", "image", "text", "scale"), fine if peer.ours else coarse)
    time = {"seconds": ratio * 1e-3, "tflops_3u": 1.0, "peak_mib": 1.0 if peer.ours else 50.0}
    if kind == "losses":
        measured = {"operation": problem.operation, "b3_ratio": ratio, "errors": errors}
        record.losses.append(shape | time | measured)
    elif kind == "large" and peer.ours and peer.workspace == 256:
        record.large.append(shape | time | {"errors": errors})
    elif kind == "precision" and (peer.ours or peer.name == "open_clip eager"):
        rounding = dict.fromkeys(("image", "text"), fine)
        more = {"scale": problem.logit_scale, "errors": errors, "rounding": rounding}
        record.precision.append(shape | more)
    elif kind == "schedule" and peer.ours:
        more = {"sent_bytes": 1, "communication_seconds": 2e-3, "compute_seconds": 1e-3}
        record.schedule.append(
            shape | time | more | {"idle_seconds": 1e-3, "spread_seconds": 1e-5, "delayed": True}
        )
