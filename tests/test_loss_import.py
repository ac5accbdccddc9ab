"""The drop-in needs torch alone, and adds little to the time that torch takes."""

import json
import subprocess
import sys

HEAVY = [
    "triton", "deepspeed", "transformers", "timm", "torchvision", "open_clip", "numpy.testing",
    "torch._dynamo", "torch._inductor", "torch.distributed.nn", "sympy", "scipy", "matplotlib",
]  # fmt: skip


def test_importing_the_loss_imports_torch_and_nothing_else():
    script = (
        "import sys, json, torch\n"
        "before = set(sys.modules)\n"
        "import fastclip.loss\n"
        "print(json.dumps([sorted(set(sys.modules) - before), sorted(sys.modules)]))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    added, loaded = json.loads(run.stdout)
    assert not [name for name in HEAVY if name in loaded]
    outside = {name.split(".")[0] for name in added} - {"fastclip"} - set(sys.stdlib_module_names)
    assert outside <= {"torch"}, outside
