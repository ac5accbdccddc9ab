import dataclasses
import json
import re
from pathlib import Path

import pytest

from benchmarks.gpu import store as store_gpu
from benchmarks.recipes import first_model
from benchmarks.reporting import cpu_report, gpu_report
from benchmarks.reporting import results as report
from benchmarks.reporting.record import GpuRecord, Record
from fastclip.ops.record import BackendRecord, Faster, read_record

README = f"before\n\n{report.BEGIN}\n\nold\n\n{report.END}\n\nafter\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr(report, "RESULTS", folder)
    (tmp_path / "README.md").write_text(README)
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    return folder


def test_everything_found_is_shown(made_up) -> None:
    made_up.failed["a peer, a shape"] = "RuntimeError: out of luck"
    made_up.skipped["another peer"] = "`import it` fails"
    made_up.not_run["a group"] = "the 9 s were used up"
    made_up.accuracy = {"outcomes": {"passed": 7, "failed": 1}}
    text = gpu_report.markdown(made_up)
    for part in (
        "no GPU: made up",
        "Accuracy tests on this GPU: 7 passed, 1 failed.",
        "| 32,768 x 32,768, D = 512 ",
        "| 4,096 x 32,768, D = 512, a rank of 8 ",
        "- a peer, a shape: RuntimeError: out of luck",
        "- another peer: `import it` fails",
        "- a group: the 9 s were used up",
        "at most 1.6: met",
    ):
        assert part in text
    assert "not measured" not in text


def test_tables_have_as_many_cells_in_every_line(made_up) -> None:
    lines = gpu_report.markdown(made_up).splitlines()
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    counts = [{line.count("|") for line in table.strip().splitlines()} for table in tables]
    assert [found for found in counts if len(found) > 1] == []


def test_record_survives_the_file(made_up, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "gpu.json"
    gpu_report.write_record(made_up, path)
    again = GpuRecord.from_plain(json.loads(path.read_text()))
    assert dataclasses.asdict(again) == dataclasses.asdict(made_up)
    assert {target["verdict"] for target in again.targets} == {"met"}
    assert [p.name for p in path.parent.iterdir()] == ["gpu.json"]


def test_plot(made_up, tmp_path: Path) -> None:
    """What is measured is what is drawn: other figures make another picture, the same the same."""
    imread = pytest.importorskip("matplotlib.image").imread

    def drawn(name: str):
        assert gpu_report.plot(made_up, tmp_path / name)
        return imread(tmp_path / name)

    first, again = drawn("plot.png"), drawn("again.png")
    height, width, _ = first.shape
    assert height > 300 and width > 3 * height and (first == again).all()
    # A panel each for time, memory and ratio, all with lines in their middle.
    for panel in range(3):
        middle = first[height // 4 : 3 * height // 4, panel * width // 3 : (panel + 1) * width // 3]
        assert len({tuple(pixel) for row in middle[::7, ::7] for pixel in row}) > 2
    for entry in made_up.losses:
        if entry["implementation"].startswith("fastclip cuda"):
            entry["seconds"] *= 3
    changed = drawn("changed.png")
    assert changed.shape == first.shape and (changed != first).any()
    assert not gpu_report.plot(GpuRecord(), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_readme_shows_what_is_stored() -> None:
    readme = report.README.read_text()
    for path in report.stored():
        plain = json.loads(path.read_text())
        if path.match(report.GPU_PATTERN):
            text = gpu_report.markdown(GpuRecord.from_plain(plain))
        else:
            text = cpu_report.markdown(Record.from_plain(plain))
        assert path.with_suffix(".md").read_text().strip() == text, path
        assert text in readme, path
    assert first_model.table(json.loads(first_model.STORE.read_text())) in readme


def test_readme_speaks_of_gpus_only_where_results_are_stored(made_up, results, tmp_path) -> None:
    report.write(report.stored(), tmp_path / "README.md")
    assert "made up" not in (tmp_path / "README.md").read_text()
    report.store(dataclasses.asdict(made_up))
    assert [path.name for path in report.stored()] == ["gpu-no-gpu-made-up.json"]
    report.write(report.stored(), tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before") and text.endswith("after\n")
    assert "no GPU: made up" in text and "old" not in text
    assert "(results/gpu-no-gpu-made-up.png)" in text


def test_parts_of_one_run_become_one_record(made_up) -> None:
    earlier = GpuRecord(
        machine=made_up.machine, losses=[e | {"seconds": 9.0} for e in made_up.losses]
    )
    earlier.accuracy = {"outcomes": {"passed": 3}}
    earlier.not_run = dict.fromkeys([made_up.groups[0], "another"], "used up")
    whole = store_gpu.merged([earlier, made_up])
    assert len(whole.losses) == len(made_up.losses)
    assert {e["seconds"] for e in whole.losses} == {e["seconds"] for e in made_up.losses}
    assert whole.accuracy == earlier.accuracy
    assert set(whole.not_run) == {"another"}
    assert {target["verdict"] for target in whole.targets} == {"met"}


def test_a_reason_goes_where_a_later_record_has_the_measurement(made_up) -> None:
    kept = {"QuACK, a shape": "no such kernel"}
    earlier = GpuRecord(machine=made_up.machine, failed=dict(kept))
    earlier.skipped = {
        "memeff": "`import memeff` fails",
        "fastclip cuda, 64 MiB, SigLIP": "no nvcc",
    }
    cases = [made_up.losses[0]["case"], made_up.precision[0]["case"], made_up.schedule[0]["case"]]
    earlier.failed |= dict.fromkeys(cases, "TimeoutError: stopped after 60 s")
    earlier.failed |= {"test_losses_gpu.py::test_loss[one]": "ended the process"}
    earlier.failed |= {"fastclip cuda": "its build was stopped after 150 s"}
    made_up.tests = ["test_losses_gpu.py::test_loss[one]"]
    whole = store_gpu.merged([earlier, made_up])
    assert whole.skipped == {} and whole.failed == kept
    # The other way round the later reasons stand beside the earlier measurements.
    assert store_gpu.merged([made_up, earlier]).failed == earlier.failed


def test_records_of_two_versions_stay_apart(made_up) -> None:
    one, other = (
        GpuRecord(machine=made_up.machine | {"versions": versions})
        for versions in ({"torch": "1", "memeff": "2"}, {"torch": "1", "QuACK": "3"})
    )
    whole = store_gpu.merged([one, other])
    assert whole.machine["versions"] == {"QuACK": "3", "memeff": "2", "torch": "1"}
    other.machine["versions"]["memeff"] = "4"
    with pytest.raises(ValueError, match="one version of memeff can be kept together, found 2, 4"):
        store_gpu.merged([one, other])


A_GPU = {"gpu": "it", "capability": "9.0"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "FILE: No such file or directory"),
        ("{", "FILE is no record of the GPU part"),
        ("[]", "FILE is no record of the GPU part"),
        ('{"throughput": {}}', "FILE is no record of the GPU part"),
        ("{}", "FILE names no machine"),
        ('{"machine": {"gpu": "no GPU"}}', "FILE holds tiny problems"),
        (json.dumps({"machine": A_GPU | {"tiny": True}}), "FILE holds tiny problems"),
        (json.dumps({"machine": A_GPU}), "a record has no 'driver'"),
        (
            json.dumps({"machine": A_GPU | {"driver": "1", "revision": "a", "versions": {}}}),
            "a record has no 'product_tflops'",
        ),
    ],
)
def test_what_cannot_be_shown_is_not_stored(text, sentence, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "gpu.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu.store", str(path)])
    wanted = f"^benchmarks.gpu.store: {sentence}".replace("FILE", re.escape(str(path)))
    with pytest.raises(SystemExit, match=wanted):
        store_gpu.main()
    assert not (tmp_path / "results").exists()


def test_nan_is_the_worst_error_shown(made_up) -> None:
    made_up.losses[0]["errors"] |= {"text": float("nan")}
    assert "nan (text)" in gpu_report.markdown(made_up)


def test_records_of_two_machines_stay_apart(made_up) -> None:
    other = GpuRecord(machine=made_up.machine | {"gpu": "another"})
    with pytest.raises(ValueError, match="records of one gpu"):
        store_gpu.merged([made_up, other])


def test_training_step_is_shown(made_up) -> None:
    made_up.train_step = {
        "model": "a model",
        "precision": "amp_bf16",
        "runs": [
            {
                "trainer": "fastclip, ZeRO 1",
                "batch": 32_768,
                "micro_batch": 1024,
                "images_per_second": 1.0,
                "peak_bytes": 2**30,
            }
        ],
        "left_out": {"open_clip": "nothing fits the memory"},
    }
    text = gpu_report.markdown(made_up)
    assert "| fastclip, ZeRO 1 | 32,768 |" in text
    assert "Training step, open_clip: nothing fits the memory." in text


@pytest.fixture
def faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The record of faster backends: ``faster(entries)`` writes them, ``faster()`` reads it."""
    path = tmp_path / "backends.json"
    monkeypatch.setattr(store_gpu, "FASTER", path)

    def entries(written: list[dict] | None = None) -> dict:
        if written is not None:
            entries = frozenset(Faster(**entry) for entry in written)
            path.write_text(BackendRecord(faster=entries).to_text())
        assert {found.name for found in tmp_path.iterdir()} == {path.name}
        found: dict = {}
        for e in sorted(read_record(path).faster):
            case = e.architecture, e.operation, e.dtype, e.backend
            found[case] = (*found.get(case, ()), (e.rows, e.columns, e.width))
        return found

    entries([])
    return entries


def set_ratios(record: GpuRecord, implementation: str, ratio: float, **of) -> None:
    for e in record.losses:
        if e["implementation"] == implementation and all(e[k] == v for k, v in of.items()):
            e["b3_ratio"] = ratio


H100 = ("sm_90", "infonce", "bfloat16", "cuda")
ONE, OF_EIGHT = (32_768, 32_768, 512), (4096, 32_768, 512)


def test_auto_takes_cuda_where_it_was_faster(made_up, faster) -> None:
    """All of ours take 1.2 times the bare products where nothing else is said."""
    made_up.machine["capability"] = "9.0"
    for workspace in ("256 MiB", "64 MiB", "logits kept"):
        name = f"fastclip cuda, {workspace}"
        set_ratios(made_up, name, 1.1, rows=4096, columns=32_768, width=512)
        set_ratios(made_up, name, 1.1, rows=32_768, width=512, dtype="bfloat16")
        set_ratios(made_up, name, 1.18, rows=32_768, width=768)  # within the noise
    set_ratios(made_up, "fastclip cuda, 64 MiB", 1.3, rows=32_768, width=512, operation="InfoNCE")
    said = store_gpu.store_faster(made_up)
    assert faster() == {H100: (OF_EIGHT,)}
    assert "4,096 x 32,768, D = 512, bfloat16: faster" in said
    assert "32,768 x 32,768, D = 512, bfloat16: not faster" in said
    # A workspace that one of both was not measured in does not count.
    made_up.losses = [e for e in made_up.losses if e["implementation"] != "fastclip triton, 64 MiB"]
    store_gpu.store_faster(made_up)
    assert faster() == {H100: (OF_EIGHT, ONE)}


def test_what_was_not_compared_stays_known(made_up, faster) -> None:
    made_up.machine["capability"] = "9.0"
    names = ("rows", "columns", "width")

    def entry(shape, architecture="sm_90", dtype="bfloat16") -> dict:
        case = {"architecture": architecture, "operation": "infonce", "dtype": dtype}
        return case | dict(zip(names, shape, strict=True)) | {"backend": "cuda"}

    other = (7, 7, 512)
    faster([entry(ONE), entry(other), entry(ONE, "sm_80"), entry(ONE, dtype="float16")])
    store_gpu.store_faster(made_up)
    kept = {H100: (other,), ("sm_80", *H100[1:]): (ONE,)}
    kept["sm_90", "infonce", "float16", "cuda"] = (ONE,)
    assert faster() == kept
    # One backend alone, another operation or no GPU compares nothing.
    faster([entry(ONE)])
    both = made_up.losses
    made_up.losses = [e for e in both if e["implementation"].startswith("fastclip triton")]
    made_up.losses += [e for e in both if e["operation"] != "InfoNCE"]
    assert "never compared" in store_gpu.store_faster(made_up)
    assert faster() == {H100: (ONE,)}


def test_a_shape_at_which_cuda_failed_is_not_taken(made_up, faster) -> None:
    made_up.machine["capability"] = "9.0"
    for e in made_up.losses:
        if e["implementation"].startswith("fastclip cuda"):
            e["b3_ratio"] = 0.9
    store_gpu.store_faster(made_up)
    assert {ONE, OF_EIGHT} < set(faster()[H100])
    label = "InfoNCE 32,768 x 32,768, D = 512 bfloat16"
    names = [
        f"fastclip cuda, 64 MiB, {label}",
        "test_losses_gpu.py::test_loss[InfoNCE-32768x32768x512-bfloat16-fastclip-cuda-64-MiB]",
    ]
    for name in names:
        made_up.failed = {name: "ArithmeticError: wrong, or left the GPU unusable"}
        store_gpu.store_faster(made_up)
        assert ONE not in faster()[H100] and OF_EIGHT in faster()[H100]
    made_up.failed = {}
    store_gpu.store_faster(made_up)
    assert ONE in faster()[H100]
    made_up.losses = [e for e in made_up.losses if e["implementation"] != "fastclip cuda, 64 MiB"]
    store_gpu.store_faster(made_up)
    assert H100 not in faster()


def test_storing_a_run_tells_what_was_faster(made_up, results, monkeypatch, capsys) -> None:
    path, faster = results / "gpu.json", results / "backends.json"
    monkeypatch.setattr(store_gpu, "FASTER", faster)
    faster.write_text(BackendRecord().to_text())
    made_up.machine["capability"] = "9.0"
    path.write_text(json.dumps(made_up.to_plain()))
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu.store", str(path)])
    monkeypatch.setattr(report, "write", lambda stored: None)
    store_gpu.main()
    assert "results: " in (said := capsys.readouterr().out) and ": not faster" in said
    assert faster.read_text() == BackendRecord().to_text()
