"""The CUDA backend's library: it compiles here, loads, and depends on torch's stable ABI alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastclip.ops import cuda_library
from fastclip.ops.infonce import clip_loss_single

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The library made from the sources as they are and what the compiler said, or skipped."""
    if cuda_library.nvcc() is None:
        pytest.skip("no nvcc to compile csrc with")
    why = cuda_library.why_unavailable()
    if why is not None:
        pytest.skip(why)
    said, run = [], cuda_library.run_command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_library, "run_command", lambda *command: said.append(run(*command)))
        library = cuda_library.build(tmp_path_factory.mktemp("library"))
    return library, "".join(said)


@pytest.fixture(scope="module")
def library(built):
    return built[0]


@pytest.fixture(scope="module")
def operators(library):
    torch.ops.load_library(str(library))
    return torch.ops.fastclip_cuda


def symbols(library, *flags):
    if shutil.which("nm") is None:
        pytest.skip("no nm to read symbols with")
    command = ["nm", "-D", *flags, str(library)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[-1] for line in lines]


def test_one_binary_for_every_torch_and_python(library):
    """What it takes from torch is C functions of the stable ABI; CUDA's runtime is inside."""
    wanted = symbols(library, "--undefined-only")
    torch_symbols = [name for name in wanted if not re.search(r"@(GLIBC|CXXABI|GCC)", name)]
    torch_symbols = [n for n in torch_symbols if not n.startswith(("_ITM_", "__gmon_start__"))]
    assert "aoti_torch_get_current_cuda_stream" in torch_symbols
    foreign = [n for n in torch_symbols if not n.startswith(("aoti_torch_", "torch_"))]
    assert foreign == []
    # Nothing later than torch 2.11 has: its header names the version of each function.
    shim = Path(torch.__file__).parent / "include" / "torch" / "csrc" / "stable" / "c" / "shim.h"
    parts = re.split(r"TORCH_FEATURE_VERSION >= TORCH_VERSION_(\d+)_(\d+)_0", shim.read_text())
    for major, minor, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if (int(major), int(minor)) > (2, 11):
            text = text.split("#endif // TORCH_FEATURE_VERSION")[0]
            assert not [n for n in torch_symbols if re.search(rf"\b{n}\(", text)]


def test_shared_objects_it_needs(library):
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    listing = subprocess.run(
        ["readelf", "-d", str(library)], capture_output=True, text=True, check=True
    ).stdout
    needed = {name.split(".so")[0] for name in re.findall(r"NEEDED.*\[(.*)\]", listing)}
    system = {"libstdc++", "libgcc_s", "libc", "libm", "libdl", "librt", "libpthread"}
    assert needed - system - {"ld-linux-x86-64", "ld-linux-aarch64"} == {
        "libtorch_cpu",
        "libtorch_cuda",
    }
    assert "RUNPATH" not in listing and "RPATH" not in listing


def test_registers_of_all_kernels(built):
    """Nothing spills, and neither setmaxnreg nor asynchronous products were given up on."""
    pattern = (
        r"Compiling entry function '(\w+)' for '(sm_\w+)'\n.*\n"
        r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    )
    kernels = re.findall(pattern, built[1])
    of = {
        name: [(target, *map(int, sizes)) for kernel, target, *sizes in kernels if name in kernel]
        for name in ("infonce_sm90", "infonce_sm80", "gradient_quantized", "merge_partials")
    }
    assert {target for target, *_ in of["infonce_sm90"]} == {"sm_90a"}
    assert {target for target, *_ in of["infonce_sm80"]} == {"sm_80", "sm_90"}
    # Two dtypes of statistics, of statistics that keep, and of the gradient.
    assert (len(of["infonce_sm90"]), len(of["infonce_sm80"])) == (6, 12)
    assert of["gradient_quantized"] and of["merge_partials"]
    assert [entry for found in of.values() for entry in found if any(entry[1:])] == []
    assert "warning" not in built[1].lower()


def test_schemas(operators):
    found = {name: str(getattr(operators, name).default._schema) for name in (
        "infonce_tile", "infonce_statistics", "infonce_gradient", "infonce_gradient_fixed",
        "infonce_fold",
    )}  # fmt: skip
    assert found["infonce_fold"] == (
        "fastclip_cuda::infonce_fold(Tensor max, Tensor sum_exp, Tensor(a!) lse, bool running)"
        " -> ()"
    )
    assert "Tensor(f!)? values" in found["infonce_statistics"]
    assert "Tensor(a!) out" in found["infonce_gradient"]


def test_tiles(operators):
    for hopper in (False, True):
        rows, columns, block_rows, block_columns = operators.infonce_tile(hopper)
        assert rows % block_rows == 0 and columns % block_columns == 0
        assert block_columns % 8 == 0


def test_cpu_tensors_get_one_sentence(operators):
    x = torch.zeros(4, 8, dtype=torch.bfloat16)
    vector, scale = torch.zeros(4), torch.ones(())
    room, target = torch.zeros(1, 4), vector.double()
    sentence = r"^fastclip_cuda: \w+ is not on a GPU; accepted: CUDA tensors$"
    with pytest.raises(RuntimeError, match=sentence):
        operators.infonce_statistics(
            x, x, scale, 0, room, room, room, room, target, None, None, False
        )
    with pytest.raises(RuntimeError, match=sentence):
        out = torch.zeros(4, 8, dtype=torch.float16)
        operators.infonce_gradient(x, x, scale, 0, vector, vector, vector, vector, out, True)
    with pytest.raises(RuntimeError, match=sentence):
        operators.infonce_fold(room, room, target, False)


def test_backend_refuses_cpu_tensors():
    x = torch.randn(4, 8)
    with pytest.raises(
        ValueError, match="^backend='cuda' got tensors on cpu; accepted: tensors on a GPU$"
    ):
        clip_loss_single(x, x, 1.0, backend="cuda")


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_switched_off():
    code = (
        "from fastclip.ops import cuda_library as c; print(c.available(), '|', c.why_unavailable())"
    )
    assert python(code, FASTCLIP_CUDA="0") == "False | FASTCLIP_CUDA=0 is set"


def test_no_compiler_is_a_reason_not_a_failure(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cuda_library, "nvcc", lambda: None)
    monkeypatch.setattr(cuda_library, "find_torch", lambda: tmp_path)
    assert not cuda_library.available()
    assert "no nvcc was found" in cuda_library.why_unavailable()
    with pytest.raises(cuda_library.CudaUnavailable, match="no nvcc was found"):
        cuda_library.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def compiler(folder, script):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nvcc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "script, why",
    [
        ("echo 'libc.so.6: version not found' >&2; exit 1", r"/nvcc does not run$"),
        ("echo 'release 12.4, V12.4.131'", r"/nvcc is of CUDA 12\.4; accepted: 12\.8 or later$"),
        ("echo hello", r"/nvcc does not say which CUDA release it is of$"),
    ],
)
def test_unfit_compiler_is_a_reason_not_a_failure(monkeypatch, tmp_path, script, why):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = compiler(tmp_path / "bin", script)
    monkeypatch.setattr(cuda_library, "nvcc", lambda: path)
    monkeypatch.setattr(cuda_library, "find_torch", lambda: tmp_path)
    assert re.search(why, cuda_library.why_unavailable())
    with pytest.raises(cuda_library.CudaUnavailable, match=why):
        cuda_library.build(tmp_path / "out")


def test_no_host_compiler_is_a_reason_not_a_failure(monkeypatch, tmp_path):
    path = compiler(tmp_path / "bin", "echo release 13.0")
    monkeypatch.setattr(cuda_library, "nvcc", lambda: path)
    monkeypatch.setattr(cuda_library, "find_torch", lambda: tmp_path)
    monkeypatch.setattr(cuda_library, "existing", lambda: None)
    monkeypatch.delenv("NVCC_CCBIN", raising=False)
    monkeypatch.setenv("PATH", "/bin-of-nothing")
    assert (
        cuda_library.why_unavailable()
        == f"{path} finds no C++ compiler to work with: gcc is not on the path"
    )
    monkeypatch.setenv("NVCC_CCBIN", "/opt/compiler")
    assert cuda_library.why_unavailable() is None


def test_what_the_compiler_says_is_one_sentence(monkeypatch, tmp_path):
    """What else it said is a note of the exception."""
    unsupported = "nvcc fatal   : Unsupported gpu architecture 'compute_90a'"
    script = f'case "$*" in *--version*) echo release 13.0;; *) echo "{unsupported}"; exit 1; esac'
    path = compiler(tmp_path / "bin", script)
    monkeypatch.setattr(cuda_library, "nvcc", lambda: path)
    monkeypatch.setattr(cuda_library, "find_torch", lambda: tmp_path)
    monkeypatch.setattr(cuda_library, "existing", lambda: None)
    monkeypatch.setenv("NVCC_CCBIN", "g++")
    assert cuda_library.why_unavailable() is None
    with pytest.raises(cuda_library.CudaUnavailable) as error:
        cuda_library.build(tmp_path / "out")
    assert str(error.value) == f"the CUDA backend could not be built: {path}: {unsupported}"
    assert error.value.__notes__[0].startswith(path)


def test_failed_build_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_library, "nvcc", lambda: shutil.which("false"))
    monkeypatch.setattr(cuda_library, "find_torch", lambda: tmp_path)
    monkeypatch.setattr(cuda_library, "why_unavailable", lambda: None)
    with pytest.raises(cuda_library.CudaUnavailable, match="could not be built"):
        cuda_library.build(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_name_follows_the_sources(tmp_path):
    folder = cuda_library.sources()
    copy = shutil.copytree(folder, tmp_path / "csrc")
    assert cuda_library.library_name(copy) == cuda_library.library_name(folder)
    (copy / "cuda" / "epilogue.cuh").write_text("// changed\n")
    assert cuda_library.library_name(copy) != cuda_library.library_name(folder)


def test_first_use_builds_once(monkeypatch, tmp_path, capsys):
    """Told in one line; the second finds the first's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cuda_library, "find_torch", lambda: tmp_path)

    def build(folder):
        (folder / cuda_library.library_name(cuda_library.sources())).touch()
        return folder

    monkeypatch.setattr(cuda_library, "build", build)
    cuda_library.find_or_build()
    assert capsys.readouterr().err.count("\n") == 1
    found = cuda_library.find_or_build()
    assert capsys.readouterr().err == ""
    assert found.parent == tmp_path / "fastclip"


def test_asking_whether_it_is_ready_neither_builds_nor_breaks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cuda_library.SWITCH, raising=False)
    monkeypatch.setattr(cuda_library, "find_torch", lambda: tmp_path)
    monkeypatch.setattr(cuda_library, "nvcc", lambda: "nvcc")
    monkeypatch.setattr(cuda_library, "why_not_compiler", lambda path: None)
    monkeypatch.setattr(cuda_library, "build", lambda folder: pytest.fail("it is built"))
    is_ready, loads = cuda_library.is_ready.__wrapped__, []
    monkeypatch.setattr(cuda_library, "load_once", lambda: loads.append(1))
    assert not is_ready() and not loads
    library = tmp_path / "fastclip" / cuda_library.library_name(cuda_library.sources())
    library.parent.mkdir()
    library.touch()
    assert is_ready() and loads
    monkeypatch.setattr(cuda_library, "load_once", lambda: cuda_library.CudaUnavailable("no"))
    assert not is_ready()
    monkeypatch.setenv(cuda_library.SWITCH, "0")
    assert not is_ready()
