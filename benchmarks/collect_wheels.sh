#!/bin/sh
# Download what gpu.sh may need on a machine without a network, into .whl/:
#
#     benchmarks/collect_wheels.sh [bench] [train] [quack]
#
# bench: pytest-benchmark and the peers. train: DeepSpeed and open_clip's loop. quack: QuACK and the
# compiler it needs, by far the largest. For CUDA 13, CPython 3.12 on x86-64, or PYTHON_VERSION.
set -eu
python=${PYTHON:-python3}
version=${PYTHON_VERSION:-3.12}
cd "$(dirname "$0")/.."
mkdir -p .whl

get() {
    platforms=""
    for n in 17 24 27 28 31 34 35; do platforms="$platforms --platform manylinux_2_${n}_x86_64"; done
    # shellcheck disable=SC2086
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" \
        --implementation cp $platforms --platform manylinux2014_x86_64 -d .whl "$@"
}

[ $# -gt 0 ] || set -- bench train
for what in "$@"; do
    case "$what" in
    bench)
        get pytest-benchmark py-cpuinfo "open_clip_torch>=3.3,<5" ftfy wcwidth memeff siglip-kernel \
            inf_cl liger-kernel cut-cross-entropy ;;
    train)
        get "open_clip_torch>=3.3,<5" ftfy wcwidth hjson pydantic typing-inspection annotated-types
        # pydantic takes one version of its core only.
        get "$("$python" -c "import glob, re, zipfile
wheel = zipfile.ZipFile(glob.glob('.whl/pydantic-[0-9]*.whl')[0])
metadata = next(name for name in wheel.namelist() if name.endswith('/METADATA'))
print(re.search('pydantic-core==[^\s;]+', wheel.read(metadata).decode()).group())")"
        # DeepSpeed comes as a source archive, whose wheel is pure Python.
        DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation -w .whl \
            "deepspeed>=0.19.6,<0.20" ;;
    quack)
        get quack-kernels "apache-tvm-ffi<0.2" torch-c-dlpack-ext nvidia-cutlass-dsl \
            nvidia-cutlass-dsl-libs-base nvidia-cutlass-dsl-libs-cu13 ;;
    *)
        echo "collect_wheels.sh: $what is not bench, train or quack" >&2
        exit 2 ;;
    esac
done
du -sh .whl
