"""Train on large JPEGs decoded whole and decoded scaled, from several seeds, and compare.

    python -m benchmarks.recipes.scaled_decoding --seeds 0 1 2

The generated set, drawn at 512 pixels and stored as JPEG, trains the default model at 64 pixels.
Runs of ``--decode whole`` and ``--decode auto`` differ in their training pictures alone:
evaluation pictures are always decoded whole. Every run's outcome is stored in
benchmarks/results/scaled_decoding.json as soon as it is known, so that a call that was stopped goes
on where it was (``--again`` starts over).
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.command import seed_number
from benchmarks.host import cpu_name
from benchmarks.paths import RESULTS, ROOT
from fastclip.data.generated.samples import SPLITS, GeneratedSpec, class_names, make_sample
from fastclip.data.generated.samples import held_out_classes as held_out
from fastclip.data.progress import Progress
from fastclip.training.run_folder import versions

STORE = RESULTS / "scaled_decoding.json"
SPEC = GeneratedSpec(num_samples=8_000, num_val=1_024, picture_size=512)
QUALITY = 90
SIDE, BATCH, EPOCHS = 64, 128, 5
DECODERS = ("whole", "auto")


def jpeg_record(split: str, index: int) -> dict[str, bytes]:
    """A record of the generated set with its picture as JPEG."""
    record = make_sample(SPEC, split, index)
    data = io.BytesIO()
    Image.open(io.BytesIO(record.pop("png"))).save(data, "JPEG", quality=QUALITY)
    return {**record, "jpg": data.getvalue()}


def write_set(folder: Path) -> None:
    """One shard a split, and the class names beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"classes": class_names(), "held_out": held_out(SPEC.seed)}
    (folder / "classes.json").write_text(json.dumps(names))
    for split in SPLITS:
        total = SPEC.num_samples if split == "train" else SPEC.num_val
        path = folder / f"{split}.tar"
        if path.exists():
            continue
        partial_path = path.with_suffix(".partial")
        with (
            tarfile.open(partial_path, "w") as tar,
            Progress(f"drawing {split}", total, "picture") as bar,
            ProcessPoolExecutor() as pool,
        ):
            records = pool.map(partial(jpeg_record, split), range(total), chunksize=16)
            for index, record in enumerate(records):
                for extension, data in record.items():
                    member = tarfile.TarInfo(f"{index:05d}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                bar.update()
        partial_path.replace(path)


def one_run(decode: str, seed: int, data: Path, logs: Path) -> dict:
    """Zero-shot accuracy after training, on combinations seen and held out."""
    name = f"{decode}-{seed}"
    splits = f"seen={data}/val-seen.tar,held-out={data}/val-held-out.tar"
    flags = {
        "train-data": data / "train.tar",
        "val-data": splits,
        "image-size": SIDE,
        "train-batch-size": BATCH,
        "epochs": EPOCHS,
        "decode": decode,
        "seed": seed,
        "logs": logs,
        "name": name,
    }
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "fastclip/train.py"]
    for flag, value in flags.items():
        command += [f"--{flag}", str(value)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    results = json.loads((logs / name / "results.json").read_text())
    return {split: results[split]["zero_shot_accuracy"] for split in ("seen", "held-out")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=seed_number, nargs="*", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder for the JPEG shards, kept afterwards")
    parser.add_argument("--again", action="store_true", help="forget the runs stored so far")
    args = parser.parse_args()
    report = {} if args.again or not STORE.exists() else json.loads(STORE.read_text())
    report |= {"cpu": cpu_name(), "versions": versions()}
    with tempfile.TemporaryDirectory() as scratch:
        data = args.data or Path(scratch) / "jpeg"
        write_set(data)
        for seed in args.seeds:
            for decode in DECODERS:
                runs = report.setdefault(decode, {})
                if str(seed) in runs:
                    continue
                runs[str(seed)] = one_run(decode, seed, data, Path(scratch))
                print(decode, f"seed {seed}", runs[str(seed)], flush=True)
                STORE.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
