"""Package layout only: ``kernels/`` at the top of the tree installs as ``fastclip.kernels``.

Everything else is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["fastclip", "fastclip.*"]),
        "fastclip.kernels",
        *(f"fastclip.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"fastclip.kernels": "kernels"},
)
