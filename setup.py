"""Package layout, and the compiled library where an install can make it.

``kernels/`` and ``csrc/`` at the top of the tree install as ``fastclip.kernels`` and
``fastclip.csrc``. Where torch can be seen from here (``pip install --no-build-isolation``) and nvcc
is there, the CUDA backend's library goes into the package; elsewhere its first use builds it (see
``fastclip/ops/cuda_library.py``). Everything else is in pyproject.toml.
"""

import importlib.util
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

_spec = importlib.util.spec_from_file_location(
    "cuda_library", Path(__file__).parent / "fastclip" / "ops" / "cuda_library.py"
)
cuda_library = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cuda_library)
# A library in the cache is for this machine: what goes into a package is compiled for it.
compiles = cuda_library.available() and cuda_library.nvcc() is not None


class WithLibrary(build_py):
    """Adds the library to a build; an editable install leaves it to the first use."""

    def run(self):
        super().run()
        if not compiles or self.editable_mode:
            return
        print("fastclip: compiling the CUDA backend", file=sys.stderr)
        try:
            cuda_library.build(Path(self.build_lib, "fastclip", "ops"))
        except cuda_library.CudaUnavailable as error:
            print(f"fastclip: installed without it: {error}", file=sys.stderr)


class Compiled(Distribution):
    """Says that a build with the library is one for this platform alone."""

    def has_ext_modules(self):
        return compiles


class AnyPython(bdist_wheel):
    """The library knows no Python: any version will do."""

    def get_tag(self):
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if compiles else (python, abi, platform)


setup(
    packages=[
        *find_packages(include=["fastclip", "fastclip.*"]),
        "fastclip.kernels",
        *(f"fastclip.kernels.{name}" for name in find_packages("kernels")),
        "fastclip.csrc",
        "fastclip.csrc.cuda",
    ],
    package_dir={"fastclip.kernels": "kernels", "fastclip.csrc": "csrc"},
    cmdclass={"build_py": WithLibrary, "bdist_wheel": AnyPython},
    distclass=Compiled,
)
