"""Where ``backend="auto"`` takes ``cuda``, on a GPU that is made up."""

import pytest
import torch
from made_up_machine import MadeUpMachine
from torch._subclasses.fake_tensor import FakeTensorMode

from fastclip.ops import cuda_library, dispatch, infonce

pytest.importorskip("triton")
from fastclip.ops.infonce import cuda_backend, triton_backend

GPU = torch.device("cuda", 0)
CASE = ("sm_90", "infonce", "bfloat16")
FASTER = (*CASE, 4096, 32_768, 512, "cuda")


class Library:
    """The tiles of the CUDA library, which is not there."""

    @staticmethod
    def infonce_tile(hopper):
        return (128, 256, 64, 128) if hopper else (128, 128, 64, 128)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """One with an H100 on which ``cuda`` was measured faster at 4,096 x 32,768, D = 512, its
    library built; what a test changes of that."""
    monkeypatch.delenv(dispatch.BACKEND_VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(cuda_library, "load", lambda: Library)
    made_up = MadeUpMachine()
    made_up.knows(passed=[(*CASE, "triton"), (*CASE, "cuda")], faster=[FASTER])
    before = dispatch.use_machine(made_up)
    yield made_up
    dispatch.use_machine(before)


def features(rows, columns, width=512, dtype=torch.bfloat16):
    return [torch.empty(size, width, dtype=dtype, device="meta") for size in (rows, columns)]


def resolve(op, backend, dtype=None, *features_and_options):
    return dispatch.resolve_backend(op, backend, GPU, dtype, *features_and_options).name


def auto(x, y, **options):
    return dispatch.resolve_backend("infonce", "auto", GPU, x.dtype, (x, y), **options).name


@pytest.mark.parametrize(
    ("rows", "columns", "width", "backend"),
    [
        (4096, 32_768, 512, "cuda"),
        (4097, 32_768, 512, "triton"),
        (4096, 32_767, 512, "triton"),
        (4096, 32_768, 768, "triton"),
        (32_768, 4096, 512, "triton"),
        (0, 32_768, 512, "triton"),
        (0, 0, 512, "triton"),
    ],
)
def test_at_what_was_measured(rows, columns, width, backend):
    assert auto(*features(rows, columns, width)) == backend


def test_not_without_features():
    assert resolve("infonce", "auto", torch.bfloat16) == "triton"


@pytest.mark.parametrize("passed", [{"triton"}, {"cuda"}, set()])
def test_only_what_passed_its_accuracy_tests(machine, passed):
    x, y = features(4096, 32_768)
    machine.knows([(*CASE, backend) for backend in passed], [FASTER])
    without_features = "triton" if "triton" in passed else "torch"
    assert resolve("infonce", "auto", x.dtype) == without_features
    assert auto(x, y) == (passed.pop() if passed else "torch")


def test_not_where_another_dtype_was_measured(machine):
    half = [("sm_90", "infonce", "float16", name) for name in ("triton", "cuda")]
    machine.knows([*machine.record.passed, *half], [FASTER])
    assert auto(*features(4096, 32_768, dtype=torch.float16)) == "triton"


def test_not_features_that_it_cannot_take():
    x, y = features(4096, 32_768)
    assert auto(x, y[:, :512:2].repeat(1, 2)) == "cuda"
    assert auto(x, y.T.contiguous().T) == "triton"


def test_nothing_is_compiled(machine, monkeypatch):
    monkeypatch.setattr(cuda_library, "load", lambda: pytest.fail("the library is loaded"))
    before = dispatch.use_machine(unbuilt := MadeUpMachine(library_ready=False))
    unbuilt.record = before.record
    assert auto(*features(4096, 32_768)) == "triton"


def test_a_name_wins():
    x, y = features(4096, 32_768)
    assert resolve("infonce", "triton", x.dtype, (x, y)) == "triton"


@pytest.mark.parametrize(("columns", "backend"), [(32_768, "cuda"), (4096, "triton")])
def test_what_is_kept_is_of_the_backend_taken(columns, backend):
    """Its size is what the fake, which decides it, gives for the name that the op is given."""
    workspace = 2**30
    with FakeTensorMode():
        x, y = (torch.empty_like(t, device=GPU) for t in features(4096, columns))
        scale = torch.empty((), device=GPU)
        taken = dispatch.resolve_for_graph("infonce", "auto", x, y, workspace)
        kept = infonce.infonce_forward(x, y, scale, 0, True, workspace, taken)[3]
        sizes = {
            name: found.new_kept(x, y, True, workspace).numel()
            for name, found in (("cuda", cuda_backend), ("triton", triton_backend))
        }
        assert kept.numel() == sizes[backend] > 0 and sizes["cuda"] != sizes["triton"]


def test_the_op_of_one_process_is_given_a_name(machine, monkeypatch):
    """Saved tensors come back at other strides, contiguous for one from a CPU: what forward took is
    what backward is told. A compiled graph asks for no sizes."""
    machine.knows(machine.record.passed, [(*CASE, 4096, 4096, 512, "cuda")])
    for strides, backend in (((512, 1), "cuda"), ((1, 4096), "triton")):
        with FakeTensorMode():
            x = torch.empty_strided((4096, 512), strides, dtype=torch.bfloat16, device=GPU)
        for compiling, expected in ((False, backend), (True, "triton")):
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda on=compiling: on)
            assert dispatch.resolve_for_graph("infonce", "auto", x, x, 2**28) == expected
            assert dispatch.resolve_for_graph("infonce", "torch", x, x, 2**28) == "torch"


def test_a_small_workspace_is_not_for_cuda():
    x, y = features(4096, 32_768)
    for workspace_bytes, backend in ((2**26, "cuda"), (2**26 - 1, "triton")):
        assert auto(x, y, workspace_bytes=workspace_bytes) == backend


def test_what_is_recorded_but_not_installed_is_not_taken(machine):
    machine.lacks_triton()
    assert auto(*features(4096, 32_768)) == "torch"


def test_ranks_take_one_backend_where_they_hold_as_many_rows():
    """That of this rank's rows against the texts of all, as many of each rank."""
    x, y = features(4096, 4096)
    assert auto(x, y, ranks=8) == "cuda"
    assert auto(x, y, ranks=4) == auto(x, y) == "triton"
    for rows in (10, 0):
        assert auto(*features(rows, rows), ranks=8) == "triton"


def test_an_answer_is_kept_only_where_sizes_do_not_matter():
    """A call of other sizes is asked about again, and a name is not."""
    with FakeTensorMode():
        small = [torch.empty_like(t, device=GPU) for t in features(64, 64)]
        large = [torch.empty_like(t, device=GPU) for t in features(4096, 32_768)]
        for pair, backend in ((small, "triton"), (large, "cuda"), (small, "triton")):
            assert dispatch.resolve_for_graph("infonce", "auto", *pair, 2**28) == backend


def test_a_name_in_the_environment_is_for_operations_that_have_it(machine, monkeypatch):
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "cuda")
    sigmoid = ("sm_90", "sigmoid", "bfloat16", "triton")
    machine.knows([*machine.record.passed, sigmoid], [FASTER])
    assert resolve("infonce", "auto", torch.bfloat16) == "cuda"
    assert resolve("sigmoid", "auto", torch.bfloat16) == "triton"
    assert resolve("distill", "auto", torch.bfloat16) == "torch"
    with pytest.raises(ValueError, match="^backend='cuda' is no backend of distill; accepted: "):
        resolve("distill", "cuda", torch.bfloat16)
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "")
    assert resolve("distill", "auto", torch.bfloat16) == "torch"


def test_names_of_a_device_that_cannot_run_them():
    """Each in one sentence, on a machine that has neither a GPU nor the interpreter."""
    cpu = torch.device("cpu")
    dispatch.use_machine(MadeUpMachine(capability=None, interprets=False))
    with pytest.raises(ValueError, match="^backend='triton' got tensors on cpu; accepted: "):
        dispatch.resolve_backend("infonce", "triton", cpu)
    with pytest.raises(ValueError, match="^backend='cuda' got tensors on cpu; accepted: "):
        dispatch.resolve_backend("infonce", "cuda", cpu)
    dispatch.use_machine(MadeUpMachine(capability=(7, 5)))
    with pytest.raises(ValueError, match="a made-up GPU is older than compute capability 8.0"):
        dispatch.resolve_backend("infonce", "cuda", GPU)
    assert dispatch.backends_of("distill") == ("torch",)
