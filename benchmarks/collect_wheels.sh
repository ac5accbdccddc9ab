#!/bin/sh
# Download what gpu.sh may need on a machine without a network, into .whl/:
#
#     benchmarks/collect_wheels.sh [bench] [train] [quack]
#
# bench: pytest-benchmark, the peers and what open_clip imports. train: DeepSpeed, transformers and
# what they import, and open_clip's loop. quack: QuACK, and the compiler that it and Liger's CuTe
# kernels need, by far the largest. The machine must have torch, triton, numpy, and for open_clip
# pillow and a torchvision that fits its torch; sentence-transformers, which brings scikit-learn and
# scipy, is compared where it is installed. Versions are those of .ci/constraints.txt, where it has
# them. For CUDA 13, CPython 3.12 on x86-64, or PYTHON_VERSION.
set -eu
python=${PYTHON:-python3}
version=${PYTHON_VERSION:-3.12}
cd "$(dirname "$0")/.."
mkdir -p .whl

get() {
    platforms=""
    for n in 17 24 26 27 28 31 34 35; do platforms="$platforms --platform manylinux_2_${n}_x86_64"; done
    # shellcheck disable=SC2086
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" \
        --implementation cp --abi "cp$(echo "$version" | tr -d .)" --abi abi3 --abi none \
        $platforms --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
        -c .ci/constraints.txt -d .whl "$@"
}

# What timm and transformers both import.
hub="huggingface-hub filelock fsspec packaging pyyaml tqdm typing-extensions safetensors
    httpx2 httpcore2 h11 anyio idna truststore typer click rich markdown-it-py mdurl pygments
    shellingham annotated-doc"

[ $# -gt 0 ] || set -- bench train
for what in "$@"; do
    case "$what" in
    bench)
        # shellcheck disable=SC2086
        get pytest-benchmark py-cpuinfo open_clip_torch ftfy wcwidth regex timm $hub memeff \
            siglip-kernel inf_cl "liger-kernel>=0.8.5" cut-cross-entropy ;;
    train)
        # shellcheck disable=SC2086
        get open_clip_torch ftfy wcwidth regex timm $hub transformers tokenizers einops hjson \
            msgpack ninja psutil py-cpuinfo pydantic pydantic-core typing-inspection annotated-types
        # DeepSpeed comes as a source archive, whose wheel is pure Python.
        DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation -w .whl \
            -c .ci/constraints.txt deepspeed ;;
    quack)
        get quack-kernels "apache-tvm-ffi<0.2" torch-c-dlpack-ext nvidia-cutlass-dsl \
            nvidia-cutlass-dsl-libs-base nvidia-cutlass-dsl-libs-cu13 einops ;;
    *)
        echo "collect_wheels.sh: $what is not bench, train or quack" >&2
        exit 2 ;;
    esac
done
du -sh .whl
