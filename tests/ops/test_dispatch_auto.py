"""Where ``backend="auto"`` takes ``cuda``, on a GPU that is made up."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastclip.functional import clip
from fastclip.functional.settings import Engine
from fastclip.ops import cuda_library, dispatch, infonce

pytest.importorskip("triton")
from fastclip.ops.infonce import cuda_backend as infonce_cuda
from fastclip.ops.infonce import triton_backend as infonce_triton

GPU = torch.device("cuda", 0)
CASE = ("sm_90", "infonce", "bfloat16")


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """An H100 on which ``cuda`` was measured faster at 4,096 x 32,768, D = 512, its library built;
    what a test changes of that."""
    monkeypatch.delenv(dispatch.BACKEND_VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(infonce_cuda, "_tile_of", lambda hopper: _tile(128, 256, hopper))
    made_up = SimpleNamespace(
        accuracy={(*CASE, "triton"), (*CASE, "cuda")},
        faster={(*CASE, "cuda"): ((4096, 32_768, 512),)},
        ready=True,
    )
    monkeypatch.setattr(dispatch, "_architecture", lambda index: "sm_90")
    monkeypatch.setattr(dispatch, "accuracy_record", lambda: made_up.accuracy)
    monkeypatch.setattr(dispatch, "faster_record", lambda: made_up.faster)
    monkeypatch.setattr(cuda_library, "ready", lambda: made_up.ready)
    return made_up


def _tile(rows, columns, hopper):
    return infonce_cuda.CudaTile(rows, columns, hopper=hopper, block_rows=64, block_columns=128)


def features(rows, columns, width=512, dtype=torch.bfloat16):
    return [torch.empty(size, width, dtype=dtype, device="meta") for size in (rows, columns)]


def auto(x, y):
    return dispatch.resolved("infonce", "auto", GPU, x.dtype, (x, y))


@pytest.mark.parametrize(
    ("rows", "columns", "width", "backend"),
    [
        (4096, 32_768, 512, "cuda"),
        (5792, 32_768, 512, "cuda"),
        (5793, 32_768, 512, "triton"),
        (2897, 23_171, 512, "cuda"),
        (2896, 32_768, 512, "triton"),
        (4096, 23_170, 512, "triton"),
        (4096, 46_341, 512, "triton"),
        (4096, 32_768, 768, "triton"),
        (32_768, 4096, 512, "triton"),
        (0, 32_768, 512, "triton"),
        (0, 0, 512, "triton"),
    ],
)
def test_near_what_was_measured(rows, columns, width, backend):
    assert auto(*features(rows, columns, width)) == backend


def test_not_without_features():
    assert dispatch.resolved("infonce", "auto", GPU, torch.bfloat16) == "triton"


@pytest.mark.parametrize("passed", [{"triton"}, {"cuda"}, set()])
def test_only_what_passed_its_accuracy_tests(gpu, passed):
    x, y = features(4096, 32_768)
    gpu.accuracy = {(*CASE, backend) for backend in passed}
    assert auto(x, y) == (passed.pop() if passed else "torch")
    assert dispatch.resolved("infonce", "auto", GPU, x.dtype) == (
        "triton" if (*CASE, "triton") in gpu.accuracy else "torch"
    )


def test_not_where_another_dtype_was_measured(gpu):
    gpu.accuracy |= {("sm_90", "infonce", "float16", name) for name in ("triton", "cuda")}
    assert auto(*features(4096, 32_768, dtype=torch.float16)) == "triton"


def test_not_features_that_it_cannot_take():
    x, y = features(4096, 32_768)
    assert auto(x, y[:, :512:2].repeat(1, 2)) == "cuda"
    assert auto(x, y.T.contiguous().T) == "triton"


def test_nothing_is_compiled(gpu, monkeypatch):
    monkeypatch.setattr(cuda_library, "_loaded", lambda: pytest.fail("the library is loaded"))
    gpu.ready = False
    assert auto(*features(4096, 32_768)) == "triton"


def test_a_name_wins():
    x, y = features(4096, 32_768)
    assert dispatch.resolved("infonce", "triton", GPU, x.dtype, (x, y)) == "triton"


@pytest.mark.parametrize(("columns", "backend"), [(32_768, "cuda"), (4096, "triton")])
def test_what_is_kept_is_of_the_backend_taken(columns, backend, gpu):
    """Its size is what the fake, which decides it, gives for the name that the op is given."""
    workspace = 2**30
    with FakeTensorMode():
        x, y = (torch.empty_like(t, device=GPU) for t in features(4096, columns))
        scale = torch.empty((), device=GPU)
        taken = dispatch.named("infonce", "auto", x, y, workspace)
        kept = infonce.infonce_forward(x, y, scale, 0, True, workspace, taken)[3]
        sizes = {
            name: found.new_kept(x, y, True, workspace).numel()
            for name, found in (("cuda", infonce_cuda), ("triton", infonce_triton))
        }
        assert kept.numel() == sizes[backend] > 0 and sizes["cuda"] != sizes["triton"]


def test_the_op_of_one_process_is_given_a_name(gpu, monkeypatch):
    """Saved tensors come back at other strides, contiguous for one from a CPU: what forward took is
    what backward is told. A compiled graph asks for no sizes."""
    gpu.faster = {(*CASE, "cuda"): ((4096, 4096, 512),)}
    for strides, backend in (((512, 1), "cuda"), ((1, 4096), "triton")):
        x = torch.empty_strided((4096, 512), strides, dtype=torch.bfloat16, device="meta")
        like = SimpleNamespace(device=GPU, dtype=x.dtype, shape=x.shape, stride=x.stride)
        monkeypatch.setattr(infonce_cuda, "why_not", lambda x, y: x.stride()[1] != 1 or None)
        for backend_of, compiling in ((backend, False), ("triton", True)):
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda on=compiling: on)
            assert dispatch.named("infonce", "auto", like, like, 2**28) == backend_of
            assert dispatch.named("infonce", "torch", like, like, 2**28) == "torch"


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1",
    reason="runs in Triton's interpreter: TRITON_INTERPRET=1",
)
def test_a_cached_graph_is_of_the_backend_taken(monkeypatch):
    """A graph is compiled, forgotten, found again on disk, and not found for another backend."""
    from torch._dynamo.utils import counters
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    monkeypatch.undo()  # what stands in for a GPU
    monkeypatch.delenv(dispatch.BACKEND_VARIABLE, raising=False)
    x, y = (torch.randn(9, 8, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    hits = []

    def gradients(loss):
        leaves = [t.clone().requires_grad_() for t in (x, y)]
        return torch.autograd.grad(loss(*leaves), leaves)

    def loss(x, y):
        return infonce.clip_loss_single(x, y, 3.0)

    # Whether the compiler knows vectors, and headers compiled ahead, cost more than all the rest.
    quick = {"compile_threads": 1, "cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}
    with fresh_cache(), config.patch(quick):
        for backend in ("torch", "torch", "triton"):
            monkeypatch.setattr(dispatch, "_best", lambda *_, taken=backend: taken)
            torch._dynamo.reset()
            counters.clear()
            found = gradients(torch.compile(loss, fullgraph=True))
            hits.append(counters["aot_autograd"]["autograd_cache_hit"])
            torch.testing.assert_close(found, gradients(loss))
    assert hits == [0, 1, 0]


def test_a_small_workspace_is_not_for_cuda():
    x, y = features(4096, 32_768)
    for workspace_bytes, backend in ((2**26, "cuda"), (2**26 - 1, "triton")):
        found = dispatch.resolved("infonce", "auto", GPU, x.dtype, (x, y), workspace_bytes)
        assert found == backend


def test_what_is_recorded_but_not_installed_is_not_taken(monkeypatch):
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    assert auto(*features(4096, 32_768)) == "torch"


def test_the_environment_may_change_before_backward(monkeypatch):
    x, y = torch.randn(2, 9, 8, requires_grad=True).unbind()
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "torch")
    loss = infonce.clip_loss_single(x, y, 3.0)
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "no such")
    loss.backward()


def test_ranks_take_one_backend_whatever_rows_they_hold():
    """That of the largest block: 4,096 rows against the texts of all."""
    shards = SimpleNamespace(rows=[4096, 10, 0], total=32_768)
    with FakeTensorMode():
        for rows in shards.rows:
            x, y = (torch.empty(rows, 512, dtype=torch.bfloat16, device=GPU) for _ in range(2))
            assert clip._backend(x, y, shards, Engine()) == "cuda"
            assert clip._backend(x, y, shards, Engine(backend="triton")) == "triton"
        turned = torch.empty_strided((4096, 512), (1, 4096), dtype=torch.bfloat16, device=GPU)
        assert clip._backend(turned, turned, shards, Engine()) == "triton"


def test_ready_neither_builds_nor_breaks(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cuda_library.SWITCH, raising=False)
    monkeypatch.setattr(cuda_library, "_torch_folder", lambda: tmp_path)
    monkeypatch.setattr(cuda_library, "nvcc", lambda: "nvcc")
    monkeypatch.setattr(cuda_library, "_why_not_compiler", lambda path: None)
    monkeypatch.setattr(cuda_library, "build", lambda folder: pytest.fail("it is built"))
    ready, loads = cuda_library.ready.__wrapped__, []
    monkeypatch.setattr(cuda_library, "_loaded", lambda: loads.append(1))
    assert not ready() and not loads
    library = tmp_path / "fastclip" / cuda_library.library_name(cuda_library.sources())
    library.parent.mkdir()
    library.touch()
    assert ready() and loads
    monkeypatch.setattr(cuda_library, "_loaded", lambda: cuda_library.CudaUnavailable("no"))
    assert not ready()
    monkeypatch.setenv(cuda_library.SWITCH, "0")
    assert not ready()


def test_the_committed_record_reads(monkeypatch):
    monkeypatch.undo()
    for (architecture, operation, dtype, backend), shapes in dispatch.faster_record().items():
        assert architecture.startswith("sm_") and backend == "cuda" and hasattr(torch, dtype)
        assert operation == "infonce" and all(min(shape) > 0 for shape in shapes)


def test_a_name_in_the_environment_is_for_operations_that_have_it(gpu, monkeypatch):
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "cuda")
    gpu.accuracy.add(("sm_90", "sigmoid", "bfloat16", "triton"))
    assert dispatch.resolved("infonce", "auto", GPU, torch.bfloat16) == "cuda"
    assert dispatch.resolved("sigmoid", "auto", GPU, torch.bfloat16) == "triton"
    assert dispatch.resolved("distill", "auto", GPU, torch.bfloat16) == "torch"
    with pytest.raises(ValueError, match="^backend='cuda' is no backend of distill; accepted: "):
        dispatch.resolved("distill", "cuda", GPU, torch.bfloat16)
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "")
    assert dispatch.resolved("distill", "auto", GPU, torch.bfloat16) == "torch"
