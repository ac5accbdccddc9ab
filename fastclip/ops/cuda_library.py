"""The compiled library of the CUDA backend: found beside this file, else built at first use.

An install on a machine that has nvcc and torch puts it in the package; elsewhere the first use
compiles ``csrc`` into ``$XDG_CACHE_HOME/fastclip`` (``~/.cache/fastclip``). A library's name has a
hash of what it was made from, so that none is used with other sources. ``FASTCLIP_CUDA=0`` in the
environment leaves it out of both.

Standard library alone at the top: setup.py reads this file too.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

SWITCH = "FASTCLIP_CUDA"
# The oldest torch whose ABI the library may use: 2.11.
TARGET = "0x020b000000000000"
OLDEST_NVCC = (12, 8)
# PTX last: what later architectures start from.
_PORTABLE = (
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_80,code=compute_80",
)
# Each source and its architectures; the longest to compile first.
SOURCES = {
    "cuda/infonce_sm80.cu": _PORTABLE,
    "cuda/infonce_sm90.cu": ("-gencode=arch=compute_90a,code=sm_90a",),
    "ops.cpp": (),
    "cuda/infonce_quantized.cu": _PORTABLE,
    "cuda/infonce_merge_partials.cu": _PORTABLE,
}
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-DUSE_CUDA",
    f"-DTORCH_TARGET_VERSION={TARGET}",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
    "-Xptxas=-v",  # registers and spills, which the tests read
)


class CudaUnavailable(RuntimeError):
    """The CUDA backend's library is not there and cannot be built; the message says why."""


@cache
def sources() -> Path | None:
    """The folder ``csrc``: in the package, or in the checkout around it."""
    for folder in (Path(__file__).parents[1] / "csrc", Path(__file__).parents[2] / "csrc"):
        if (folder / "ops.cpp").is_file():
            return folder
    return None


def library_name(folder: Path) -> str:
    """Of the library made from these sources by these commands."""
    digest = hashlib.sha256(repr((SOURCES, _FLAGS)).encode())
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".cpp", ".cu", ".cuh", ".h"):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return f"libfastclip_cuda_{digest.hexdigest()[:16]}.so"


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastclip"


def nvcc() -> str | None:
    """The compiler: in ``$CUDA_HOME``, on the path, or where CUDA's own installer puts it."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    folders = [f"{home}/bin" for home in homes if home]
    folders += [os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(folders))


@cache
def why_not_compiler(path: str) -> str | None:
    """Why the compiler at ``path`` cannot compile csrc, or None."""
    try:
        said = run_command(path, "--version")
    except CudaUnavailable:
        return f"{path} does not run"
    version = re.search(r"release (\d+)\.(\d+)", said)
    if version is None:
        return f"{path} does not say which CUDA release it is of"
    if tuple(map(int, version.groups())) < OLDEST_NVCC:
        return f"{path} is of {version[0].replace('release', 'CUDA')}; accepted: 12.8 or later"
    return None


def find_torch() -> Path | None:
    """The folder of a torch with CUDA, found without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    return folder if (folder / "lib" / "libtorch_cuda.so").exists() else None


def existing() -> Path | None:
    """The library, if it is already built."""
    folder = sources()
    if folder is None:
        return None
    name = library_name(folder)
    for place in (Path(__file__).parent, _cache_folder()):
        if (place / name).is_file():
            return place / name
    return None


def why_unavailable() -> str | None:
    """Why the library can be neither found nor built, or None. Builds nothing."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 is set"
    if sources() is None:
        return "this installation has no folder csrc"
    if find_torch() is None:
        return "torch is not installed or has no CUDA"
    if existing() is not None:
        return None
    compiler = nvcc()
    if compiler is None:
        return "it is not built and no nvcc was found in $CUDA_HOME, on the path or in /usr/local"
    why = why_not_compiler(compiler)
    if why is None and "NVCC_CCBIN" not in os.environ and shutil.which("gcc") is None:
        why = f"{compiler} finds no C++ compiler to work with: gcc is not on the path"
    return why


def available() -> bool:
    """Whether the library is there or can be built."""
    return why_unavailable() is None


def build(folder: Path) -> Path:
    """Compile ``csrc`` to a library in ``folder``, whole or not at all.

    Raises CudaUnavailable where something is missing or the compiler fails.
    """
    why = why_unavailable()
    csrc, torch_folder, compiler = sources(), find_torch(), nvcc()
    if why or csrc is None or torch_folder is None or compiler is None:
        raise CudaUnavailable(f"the CUDA backend is unavailable: {why or 'no nvcc was found'}")
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / library_name(csrc)
    include = torch_folder / "include"
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as temporary:

        def compiled(source: str) -> str:
            out = f"{temporary}/{Path(source).name}.o"
            includes = () if source.endswith(".cu") else (f"-I{include}",)
            run_command(
                compiler, *_FLAGS, *SOURCES[source], *includes, "-c", csrc / source, "-o", out
            )
            return out

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            objects = list(pool.map(compiled, SOURCES))
        library = Path(temporary, done.name)
        # torch's libraries are in the process already: no path to them is written down.
        torch_libraries = (f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-ltorch_cuda")
        run_command(
            compiler, "-shared", "-cudart=static", *objects, *torch_libraries, "-o", library
        )
        library.replace(done)
    return done


def run_command(*command: object) -> str:
    """What the command says. A failure is one sentence; the command and all that it said are
    notes of the exception."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CudaUnavailable(f"the CUDA backend could not be built: {error}") from None
    said = done.stdout + done.stderr
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
        first = next(iter(errors + lines), f"exit status {done.returncode}")
        failed = CudaUnavailable(f"the CUDA backend could not be built: {words[0]}: {first}")
        failed.add_note(" ".join(words))
        failed.add_note(said)
        raise failed
    return said


def find_or_build() -> Path:
    """The library; whoever builds it into the cache says so, and others wait for it."""
    found = existing()
    if found is not None:
        return found
    import fcntl  # not on every system that the rest runs on

    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    # The processes of one machine wait for the first of them.
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = existing()
        if found is not None:
            return found
        print(f"fastclip: compiling the CUDA backend into {folder}, once", file=sys.stderr)
        return build(folder)


@cache
def load_once() -> Any:
    """The namespace ``torch.ops.fastclip_cuda``, or the exception that says why there is none."""
    import torch

    why = why_unavailable()
    if why is not None:
        return CudaUnavailable(f"the CUDA backend is unavailable: {why}")
    try:
        torch.ops.load_library(str(find_or_build()))
    except CudaUnavailable as error:
        return error
    except OSError as error:
        return CudaUnavailable(
            f"the CUDA backend's library does not load: {error.__cause__ or error}"
        )
    return torch.ops.fastclip_cuda


@cache
def is_ready() -> bool:
    """Whether the library is there and loads: no call builds it.

    Asked once a process, so that what is decided by it stays decided.
    """
    there = why_unavailable() is None and existing() is not None
    return there and not isinstance(load_once(), CudaUnavailable)


def is_loaded() -> bool:
    """Whether this process has loaded the library."""
    return load_once.cache_info().currsize > 0 and not isinstance(load_once(), CudaUnavailable)


def load() -> Any:
    """The namespace ``torch.ops.fastclip_cuda``, its library loaded and if need be built.

    Raises CudaUnavailable, the second time without trying again.
    """
    found = load_once()
    if isinstance(found, CudaUnavailable):
        raise found
    return found
