"""What ``main`` prints and returns for input that a person can mend."""

import contextlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import torch
from commands import TINY, losses
from ranks import run_ranks

# What each fault gets; the runs named here leave nothing in the folder of runs but these.
EXPECTED = {
    "missing": "absent.tar",
    "format": "there is no file or folder words.txt",
    "empty": "--train-data is '::', of which part 1 of 2 is empty",
    "corrupt": "records are bad (6 x picture is corrupt; the last: corrupt/00005, ",
    "batch": "--train-micro-batch-size-per-gpu is 7, expected a divisor of 64",
    "fp16": "--precision fp16 is not supported by this accelerator (cpu)",
    "model": "unknown name 'ViT-Z'",
    "tokenizer": "--tokenizer is 'nowhere.gz', expected auto, bpe, words or",
    "large": "has 512 usable samples, fewer than one global batch of 4096",
    "flag": "unknown flag --learning-rate",
    "recipe": "absent.yaml: No such file",
    "val": "--val-data holds 'held-out=', expected name=path",
    "no val": "absent.tar",
    "name": "finished holds a run already; choose another name or give --resume auto",
    "tokens": "was made with tokenizer (--tokenizer, --vocab-size and the captions)",
    "processes": "was written by 3 processes, found 1: resume with 3",
    "pickle": "is refused: it holds something other than tensors and plain values (posix.system)",
    "damaged": "step_00000006: continue from that with --resume",
    "none whole": "no whole checkpoint precedes it",
    "path": "--resume is nowhere, expected none, auto, a run's folder or one of its checkpoints",
    "other run": "other holds another run than --resume",
    "objective": "--siglip contradicts --objective",
    "flag of another": "--teacher",
    "teacher": "--objective distill needs --teacher: the folder of a trained model",
    "no order": "--objective captioning predicts words in their order, which --tokenizer words",
    "diverges": "loss is not finite at step",
}


class Evil:
    def __reduce__(self):
        return os.system, ("touch planted",)


def cut_pictures(source: Path, target: Path) -> None:
    """A copy of a shard in which every picture is cut short."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = old.extractfile(member).read()
            if member.name.endswith(".png"):
                data = data[: len(data) // 2]
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))


def every_fault(rank, folder, shard, val, whole):
    from fastclip.train import main

    os.chdir(folder)
    logs = Path("logs")
    found = {}

    def attempt(name, *args, run=None):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            code = main([*TINY, "--logs", str(logs), "--name", run or name, *args])
        found[name] = (code, err.getvalue().strip())

    data = ("--train-data", shard)
    attempt("missing", "--train-data", "absent.tar")
    attempt("format", "--train-data", "words.txt")
    attempt("empty", "--train-data", "::", "--dataset-type", "webdataset")
    cut_pictures(Path(shard), Path("corrupt.tar"))
    attempt("corrupt", "--train-data", "corrupt.tar")
    attempt("batch", *data, "--train-micro-batch-size-per-gpu", "7")
    from deepspeed.accelerator import get_accelerator

    get_accelerator().is_fp16_supported = lambda: False  # as on CPUs without fp16 arithmetic
    attempt("fp16", *data, "--precision", "fp16")
    attempt("model", *data, "--model", "ViT-Z")
    attempt("tokenizer", *data, "--tokenizer", "nowhere.gz")
    attempt("large", *data, "--train-batch-size", "4096")
    attempt("flag", *data, "--learning-rate", "1")
    attempt("recipe", "--config", "absent.yaml")
    attempt("val", *data, "--val-data", "held-out=", "--max-steps", "1")
    attempt("no val", *data, "--val-data", "a=absent.tar", "--max-steps", "1")

    shutil.copytree(whole, logs / "finished")
    before = contents(logs)
    attempt("name", *data, run="finished")
    again = (*data, "--resume", "auto")
    attempt("tokens", *again, "--vocab-size", "8", run="finished")
    newest = max(logs.glob("finished/checkpoints/*"))
    torch.save({"step": Evil()}, "evil.pt")
    for name, file, planted in (
        ("processes", newest / "complete.json", b'{"step": 8, "world_size": 3}'),
        ("pickle", newest / "state_rank00000.pt", Path("evil.pt").read_bytes()),
    ):
        good = file.read_bytes()
        file.write_bytes(planted)
        attempt(name, *again, run="finished")
        file.write_bytes(good)
    state, earlier = newest / "state_rank00000.pt", logs / "finished/checkpoints/step_00000006"
    good = state.read_bytes()
    state.write_bytes(good[: len(good) // 2])
    attempt("damaged", *again, run="finished")
    part = max(earlier.rglob("*.pt"), key=lambda path: path.stat().st_size)
    intact = part.read_bytes()
    flipped = bytearray(intact)
    flipped[len(intact) // 2] ^= 1
    part.write_bytes(flipped)
    attempt("none whole", *again, run="finished")
    part.write_bytes(intact)
    state.write_bytes(good)
    attempt("path", *data, "--resume", "nowhere")
    shutil.copytree(whole, logs / "other")
    attempt("other run", *data, "--resume", str(earlier), run="other")
    shutil.rmtree(logs / "other")
    attempt("objective", *data, "--siglip", "--objective", "clip")
    attempt("flag of another", *data, "--teacher", "x")
    attempt("teacher", *data, "--objective", "distill")
    attempt("no order", *data, "--objective", "captioning", "--tokenizer", "words")
    found["changed"] = before != contents(logs)
    found["planted"] = Path("planted").exists()

    attempt("diverges", *data, "--lr", "1e30", "--max-steps", "6")
    found["left"] = sorted(path.name for path in logs.iterdir())
    args = [*TINY, *data, "--logs", str(logs), "--resume", str(earlier)]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        found["earlier"] = main(args), out.getvalue(), losses(logs / "finished")
    found["aside"] = sorted(path.name for path in (logs / "finished/checkpoints").iterdir())
    found["listed"] = next(logs.glob("diverges/not_finite_rank0.txt")).read_text().split()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_faults_are_told_in_one_sentence_with_code_2(shapes, tmp_path, whole):
    shard = shapes.train.replace("{0000..0000}", "0000")
    run, _ = whole
    [found] = run_ranks(every_fault, 1, str(tmp_path), shard, shapes.val_held_out, str(run))
    for name, text in EXPECTED.items():
        code, told = found[name]
        assert code == 2, name
        last = told.splitlines()[-1]
        assert last.startswith("error: "), (name, told)
        assert text in last, (name, told)
        # A skipped record is named on a line of its own, and slow work tells how far it is.
        others = told.splitlines()[:-1]
        assert all(line.startswith(("skipped ", "reading ")) for line in others), (name, told)
    assert "its batch holds train-0000/" in found["diverges"][1]
    assert len(found["listed"]) == 64
    assert found["left"] == ["diverges", "finished"]
    code, told, resumed = found["earlier"]
    assert (code, resumed) == (0, losses(run))
    assert "resuming at step 6:" in told
    aside = [name for name in found["aside"] if not name.startswith("replaced_step_00000008_")]
    assert aside == ["step_00000006", "step_00000008"]
    assert not found["changed"]
    assert not found["planted"]
