#!/bin/sh
# Accuracy tests, benchmarks and a training step on this machine's GPU, inside nine minutes:
#
#     benchmarks/gpu.sh OUT_FOLDER [accuracy] [benchmarks] [train] [-- PYTEST ARGUMENTS]
#
# Needs python3 with torch, triton and pytest; nothing is installed outside a temporary folder, and
# nothing is fetched. Wheels in .whl/ are unpacked there first (benchmarks/collect_wheels.sh collects
# them). PYTHON names another interpreter, FASTCLIP_REVISION the revision where there is no
# git, FASTCLIP_GPU_SECONDS the time to stay within (540).
set -eu
case "${1:-}" in "" | -*)
    echo "usage: benchmarks/gpu.sh OUT_FOLDER [accuracy] [benchmarks] [train] [-- PYTEST ARGUMENTS]" >&2
    exit 2 ;;
esac
started=$(date +%s)
python=${PYTHON:-python3}
case "$1" in /*) out=$1 ;; *) out=$(pwd)/$1 ;; esac
shift
cd "$(dirname "$0")/.."
root=$(pwd)
"$python" -c "import torch; raise SystemExit(0 if torch.cuda.is_available() else 2)" || {
    echo "benchmarks/gpu.sh needs a GPU, and torch sees none here" >&2
    exit 2
}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT INT TERM

# The package without an installation: fastclip/ as it is, with kernels/ as fastclip.kernels.
mkdir "$site/fastclip"
for entry in fastclip/*; do
    ln -s "$root/$entry" "$site/$entry"
done
ln -s "$root/kernels" "$site/fastclip/kernels"
for folder in csrc configs; do
    if [ -d "$folder" ]; then ln -s "$root/$folder" "$site/$folder"; fi
done
for wheel in .whl/*.whl; do
    [ -e "$wheel" ] || continue
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --disable-pip-version-check --upgrade --target "$site" "$wheel" ||
        echo "$wheel is left out: pip does not install it here" >&2
done
export PYTHONPATH="$site:$root/benchmarks" PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
export PYTHONDONTWRITEBYTECODE=1
"$python" benchmarks/gpu_run.py --started "$started" "$out" "$@"
