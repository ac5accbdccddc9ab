"""Compiles kernels for GPUs that need not be present, and prints what the binaries use.

Run as a program, in a process without Triton's interpreter: one JSON object a line for each case
named by its arguments, ``kernel:architecture:dtype:variant``, or with ``:warps`` behind that, which
is how many warps share a tile instead of those of the table.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import triton
import triton.backends.nvidia
from fastclip.kernels import (
    epilogue,
    infonce,
    linear_sigmoid,
    row_gradient,
    row_statistics,
    sigmoid,
    tiles,
)
from fastclip.kernels.launch import FUSED
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
# kernel -> the operation whose tile it has, where it keeps no logits
TILED = {
    "statistics": "statistics",
    "gradient": "gradient",
    "sigmoid": "sigmoid",
    "row_statistics": "statistics",
    "row_gradient": "gradient",
    "linear_sigmoid": "linear_sigmoid",
}
CAPABILITIES = {"sm_80": 80, "sm_90": 90, "sm_100": 100}
INTEGERS = {"width", "rows", "columns", "count", "length", "target_offset", "first", "matrix_rows",
            "first_column", "id_columns"}  # fmt: skip
# Arguments that a launch leaves out: with one target a row, with several, with dense labels.
WITHOUT = {
    "one": ("bounds",),
    "several": ("row_sum", "row_offset", "labels"),
    "dense": ("entry_columns", "bounds", "entry_labels"),
}
# Arguments that a launch has with ids, by what becomes of them.
ID_ARGUMENTS = {
    "positive": ("ids_of_rows", "ids_of_columns", "row_sum", "column_sum", "row_share",
                 "column_share"),
    "ignore": ("ids_of_rows", "ids_of_columns"),
}  # fmt: skip
ALL_ID_ARGUMENTS = ID_ARGUMENTS["positive"]


def tiled(operation, dtype, architecture):
    entry = tiles.tables()[architecture][operation][str(dtype.itemsize * 8)]
    return tiles.Tile(**entry)


def case(kernel: str, architecture: str, dtype: torch.dtype, variant: str, warps: int | None):
    """JIT function, pointer types, constexprs and launch options."""
    features, f32 = POINTERS[dtype], "*fp32"
    gradient = f32 if dtype == torch.float32 else "*fp16"
    kept = "stored" if dtype == torch.float32 else "quantized"
    values = f32 if kept == "stored" else "*i16"
    if kernel in TILED:
        used = tiled("kept" if "kept" in variant else TILED[kernel], dtype, architecture)
        used = replace(used, warps=warps or used.warps)
        constants = {
            **{k: v for k, v in used.launch.items() if k.isupper()},
            **used.product(used.depth * 8, dtype),
            "INTERPRETED": False,
            "EVEN_DEPTH": variant != "ragged",
        }
        launch = {k: v for k, v in used.launch.items() if not k.isupper()}
        x = y = features
    ids = dict(ids_of_rows="*i64", ids_of_columns="*i64")
    if kernel in ("statistics", "gradient", "sigmoid"):
        constants["IDS"] = next((kind for kind in ID_ARGUMENTS if kind in variant), "none")
        used_ids = ID_ARGUMENTS.get(constants["IDS"], ())
        constants |= dict.fromkeys(n for n in ALL_ID_ARGUMENTS if n not in used_ids)
    if kernel == "statistics":
        pointers = dict(
            x=x, y=y, scale=f32, row_max=f32, row_sum_exp=f32, column_max=f32, column_sum_exp=f32,
            target="*fp64", values=values, affine=f32, row_sum=f32, column_sum=f32, **ids,
        )  # fmt: skip
        constants["KEEP"] = kept if "kept" in variant else "product"
        function = infonce.statistics_kernel
    elif kernel == "gradient":
        pointers = dict(
            x=x, y=y, scale=f32, row_shift=f32, row_factor=f32, column_shift=f32,
            column_factor=f32, out=gradient, values=values, affine=f32, row_share=f32,
            column_share=f32, **ids,
        )  # fmt: skip
        constants["SOURCE"] = kept if "kept" in variant else "product"
        function = infonce.gradient_kernel
    elif kernel == "sigmoid":
        pointers = dict(
            x=x, y=y, scale=f32, bias=f32, losses=f32, bias_gradients=f32, on_target=f32,
            out=gradient, factor="fp32", **ids,
        )  # fmt: skip
        constants |= {"GRADIENT": True, "WRITE": True}
        function = sigmoid.sigmoid_kernel
    elif kernel in ("row_statistics", "row_gradient", "linear_sigmoid"):
        pointers = dict(
            x=x, y=y, scale=f32, bias=features, row_max=f32, row_sum_exp=f32, row_sum=f32,
            entry_columns="*i32", bounds="*i32", target="*fp64", values=values, affine=f32,
            row_shift=f32, row_factor=f32, row_offset=f32, on_target=f32, out=gradient,
            column_sum=f32, positive_weight=f32, negative_weight=f32, labels="*u8",
            entry_labels=f32, losses=f32,
        )  # fmt: skip
        kind, *source = variant.split("-")
        constants["KEEP" if kernel == "row_statistics" else "SOURCE"] = (
            kept if source else "product"
        )
        constants |= dict.fromkeys(WITHOUT[kind])
        function = {
            "row_statistics": row_statistics.statistics_kernel,
            "row_gradient": row_gradient.gradient_kernel,
            "linear_sigmoid": linear_sigmoid.linear_sigmoid_kernel,
        }[kernel]
        constants = {k: v for k, v in constants.items() if k in function.arg_names}
    elif kernel == "merge_partials":
        pointers = dict(maximum=f32, sum_exp=f32, lse="*fp64")
        constants, launch = {"RUNNING": True, "STEP": 32, "BLOCK": 32}, {"num_warps": 4, **FUSED}
        function = infonce.merge_partials_kernel
    else:
        pointers = dict(
            x=features, a=f32, partial=f32, out=f32 if kernel == "scale_and_add_rows" else features,
            unit=f32, factor=f32, matrix=f32 if kernel == "scale_and_round" else features,
        )  # fmt: skip
        constants = {k: v for k, v in epilogue.LAUNCH.items() if k.isupper()}
        constants["INTERPRETED"], launch = False, {"num_warps": 4, **FUSED}
        function = getattr(epilogue, f"{kernel}_kernel")
    return function, pointers, constants, launch


def signature(function, pointers, constants):
    """Types, constants and alignments of a launch on contiguous, aligned matrices."""
    types, known, attributes = {}, {}, {}
    for index, name in enumerate(function.arg_names):
        unit = name in ("x_stride", "y_stride", "a_stride", "labels_stride", "stride")
        unused = name in ("values", "affine") and "product" in constants.values()
        if name in constants or unit or unused:
            types[name] = "constexpr"
            known[(index,)] = constants.get(name, 1 if unit else None)
            continue
        types[name] = pointers.get(name, "i32")
        if types[name].startswith("*") or name.endswith("row_stride") or name == "width":
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif types[name] == "i32" and name not in INTEGERS:
            attributes[(index,)] = [["tt.divisibility", 8 if "stride" in name else 1]]
    return types, known, attributes


def compiled(kernel: str, architecture: str, dtype: torch.dtype, variant: str, warps: int | None):
    function, pointers, constants, launch = case(kernel, architecture, dtype, variant, warps)
    types, known, attributes = signature(function, pointers, constants)
    source = ASTSource(fn=function, signature=types, constexprs=known, attrs=attributes)
    target = GPUTarget("cuda", CAPABILITIES[architecture], 32)
    return triton.compile(source, target=target, options=launch)


def usage(binary: bytes) -> dict[str, int]:
    """Registers a thread, and the bytes of its stack, which is where registers spill to."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    return {name.lower(): int(found[name]) for name in ("REG", "STACK", "LOCAL")}


def report(name: str) -> dict[str, object]:
    kernel, architecture, dtype, variant, *warps = name.split(":")
    given = int(warps[0]) if warps else None
    result = compiled(kernel, architecture, getattr(torch, dtype), variant, given)
    launched = {"shared": result.metadata.shared, "warps": result.metadata.num_warps}
    launched["bound"] = result.metadata.maxnreg
    return {"case": name, **launched, **usage(result.asm["cubin"])}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps(report(argument)), flush=True)
