"""What gets installed, from where it imports, and that no name of ours hides another's."""

import os
import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import fastclip

ROOT = Path(__file__).resolve().parents[1]


def python(*args: str, **changes: object) -> str:
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=300, check=False, **changes
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_name_of_ours_hides_a_library():
    """The deepspeed launcher puts fastclip/ first on sys.path before train.py takes it off."""
    ours = {p.stem for p in (ROOT / "fastclip").iterdir() if not p.name.startswith(("_", "."))}
    ours -= {"py"}
    installed = set(packages_distributions()) - {"fastclip", "__editable___fastclip_engine"}
    assert "loss" in ours
    assert ours.isdisjoint(sys.stdlib_module_names), ours & set(sys.stdlib_module_names)
    assert ours.isdisjoint(installed), ours & installed


def test_train_takes_its_own_folder_off_the_path():
    code = (
        "import sys, runpy; sys.path.insert(0, sys.argv[1])\n"
        "runpy.run_path(sys.argv[1] + '/train.py', run_name='not_main')\n"
        "print(sys.argv[1] in sys.path)"
    )
    assert python("-c", code, str(ROOT / "fastclip")) == "False"


def test_kernels_import_from_the_editable_install():
    code = "import fastclip.kernels, fastclip; print(fastclip.kernels.__name__)"
    assert python("-c", code, cwd="/") == "fastclip.kernels"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from an sdist, as an index would serve it."""
    pytest.importorskip("build", reason="building needs the test extra")
    out = tmp_path_factory.mktemp("dist")
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "FASTCLIP_CUDA": "0"}
    # Without isolation: setuptools is in the environment, and an index may be out of reach.
    python("-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT), env=env)
    [found] = out.glob("fastclip_engine-*.whl")
    assert len(list(out.glob("fastclip_engine-*.tar.gz"))) == 1
    return found


def test_sdist_to_wheel_to_import(wheel, tmp_path):
    target = tmp_path / "site"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel))
    assert (target / "fastclip" / "py.typed").exists() and not (target / "benchmarks").exists()
    records = {path.name for path in (target / "fastclip" / "ops").glob("*.json")}
    assert records == {"backends.json"}
    operation = target / "fastclip" / "ops" / "linear" / "cross_entropy"
    assert (operation / "triton_backend.py").exists()
    shipped = {path.name for path in (target / "fastclip" / "csrc").rglob("*") if path.is_file()}
    assert {path.name for path in (ROOT / "csrc").rglob("*.cu*")} < shipped
    assert {"ops.cpp", "infonce.h"} < shipped
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import fastclip.loss, fastclip.kernels, fastclip.training.config, fastclip.data.cli\n"
        "assert fastclip.__file__.startswith(sys.path[0]), fastclip.__file__\n"
        "print(fastclip.kernels.__file__)"
    )
    where = python("-S", "-c", f"import site; site.main()\n{code}", cwd=tmp_path)
    assert where == str(target / "fastclip" / "kernels" / "__init__.py")


def test_a_library_in_the_cache_makes_no_wheel_one_of_this_platform(tmp_path, monkeypatch):
    """What goes into a wheel is compiled for it, which takes nvcc."""
    from fastclip.ops import cuda_library

    monkeypatch.delenv(cuda_library.SWITCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda *args, **options: None)
    library = tmp_path / "fastclip" / cuda_library.library_name(cuda_library.sources())
    library.parent.mkdir()
    library.touch()
    if not cuda_library.available():
        pytest.skip(cuda_library.why_unavailable())
    monkeypatch.setattr("setuptools.setup", lambda **options: None)
    monkeypatch.chdir(ROOT)
    assert runpy.run_path(str(ROOT / "setup.py"))["compiles"] is False


def test_version_is_told_once():
    from importlib.metadata import version

    assert version("fastclip-engine") == fastclip.__version__


def make_venv(folder: Path, pythons: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHON_FOR_VENV": pythons, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["sh", str(ROOT / ".ci" / "make_venv"), str(folder / "venv")]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_set_up_says_which_python_it_found_and_needs(tmp_path):
    for name, version, answers in (("old", "3.9", "exit 1"), ("bare", "3.12", "exit $bare")):
        script = tmp_path / f"python-{name}"
        script.write_text(
            "#!/bin/sh\nbare=0\n"
            'case "$2" in *ensurepip*) bare=1;; *print*) echo ' + version + "; exit;; esac\n"
            f"{answers}\n"
        )
        script.chmod(0o755)
    needs = "fastclip needs Python 3.11 to 3.14 with its venv module, found:"
    none = make_venv(tmp_path, "no-such-python")
    assert (none.returncode, none.stderr) == (1, f"{needs} none.\n")
    bad = make_venv(tmp_path, "python-old python-bare")
    assert bad.returncode == 1
    assert bad.stderr == (
        f"{needs} python-old is 3.9; python-bare (3.12) has no venv module "
        "(Debian: apt install python-bare-venv);\n"
    )
    assert not (tmp_path / "venv").exists()
