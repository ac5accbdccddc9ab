#!/bin/sh
# Accuracy tests, benchmarks and a training step on this machine's GPU, inside nine minutes:
#
#     benchmarks/gpu.sh OUT_FOLDER [accuracy] [benchmarks] [train] [-- PYTEST ARGUMENTS]
#
# Accuracy needs python3 with torch, triton and pytest; benchmarks also pytest-benchmark; open_clip
# also timm and torchvision; the training step all of these, transformers and DeepSpeed. Nothing is
# fetched: wheels in .whl/ are unpacked into a temporary folder first, and
# benchmarks/collect_wheels.sh says which it collects. Packages are installed nowhere else; what is
# compiled stays in the user's caches (fastclip's, Triton's, torch's) for the next call.
# PYTHON names another interpreter, FASTCLIP_REVISION the revision where there is no git,
# FASTCLIP_GPU_SECONDS the time to stay within (540). Exit code 1: an accuracy test or one of our
# own implementations failed.
set -eu
case "${1:-}" in
-h | --help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
    exit ;;
"" | -*)
    echo "usage: benchmarks/gpu.sh OUT_FOLDER [accuracy] [benchmarks] [train] [-- PYTEST ARGUMENTS]" >&2
    exit 2 ;;
esac
started=$(date +%s)
python=${PYTHON:-python3}
case "$1" in /*) out=$1 ;; *) out=$(pwd)/$1 ;; esac
case "$python" in /*) ;; */*) python=$(pwd)/$python ;; esac
shift
for part; do
    case "$part" in
    --) break ;;
    accuracy | benchmarks | train) ;;
    *)
        echo "benchmarks/gpu.sh: part '$part'; accepted: accuracy, benchmarks, train" >&2
        exit 2 ;;
    esac
done
cd "$(dirname "$0")/.."
root=$(pwd)
"$python" -c "import importlib.util as u; raise SystemExit(not u.find_spec('torch'))" 2>/dev/null || {
    echo "benchmarks/gpu.sh: $python is no Python with torch; PYTHON names another one" >&2
    exit 2
}
"$python" -c "import torch; raise SystemExit(0 if torch.cuda.is_available() else 2)" || {
    echo "benchmarks/gpu.sh needs a GPU, and torch sees none here" >&2
    exit 2
}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The package without an installation: fastclip/ as it is, with kernels/ as fastclip.kernels.
mkdir "$site/fastclip"
for entry in fastclip/*; do
    ln -s "$root/$entry" "$site/$entry"
done
ln -s "$root/kernels" "$site/fastclip/kernels"
for folder in csrc configs benchmarks; do
    if [ -d "$folder" ]; then ln -s "$root/$folder" "$site/$folder"; fi
done
unpack() {
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --disable-pip-version-check --upgrade --target "$site" "$@"
}
# All at once is fast; one that does not install here fails all, and is left out alone.
set_of_wheels=$(ls .whl/*.whl 2>/dev/null || true)
# shellcheck disable=SC2086
if [ -n "$set_of_wheels" ] && ! unpack $set_of_wheels 2>/dev/null; then
    for wheel in $set_of_wheels; do
        unpack "$wheel" || echo "$wheel is left out: pip does not install it here" >&2
    done
fi
export PYTHONPATH="$site" PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
export PYTHONDONTWRITEBYTECODE=1
"$python" -m benchmarks.gpu.run --started "$started" "$out" "$@"
