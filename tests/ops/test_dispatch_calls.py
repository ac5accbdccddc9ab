"""How many calls of our own lead from a loss to its maths, and what is asked on the way."""

import os

import pytest
import torch
from calls_to_maths import calls_to_maths

from fastclip.loss import ClipLoss, CoCaLoss
from fastclip.ops import dispatch, infonce

# From ``ClipLoss.forward`` to the first line of the backend's ``forward``, that call included.
MOST_ALONE = 4


@pytest.fixture(autouse=True)
def _no_backend_in_the_environment(monkeypatch):
    monkeypatch.delenv(dispatch.BACKEND_VARIABLE, raising=False)


def inputs(dtype=torch.float32, grad=True):
    x, y = torch.randn(2, 16, 8).to(dtype).requires_grad_(grad).unbind()
    return x, y, torch.tensor(3.0, requires_grad=grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_calls_of_one_process(dtype, grad, backend):
    loss = ClipLoss(backend=backend)
    calls = calls_to_maths(loss, inputs(dtype, grad))
    assert calls[-1].endswith("infonce/torch_backend.py:forward")
    assert len(calls) <= MOST_ALONE, calls
    assert sum("dispatch.py" in call for call in calls) == 1, calls


def test_a_backend_by_the_environment_costs_no_call(monkeypatch):
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "torch")
    calls = calls_to_maths(ClipLoss(), inputs())
    assert len(calls) <= MOST_ALONE, calls


def test_the_count_sees_calls():
    """Inputs that must be looked at closely, and a loss that is a part of another."""
    x, y, _ = inputs()
    assert len(calls_to_maths(ClipLoss(), (x, y, 3.0))) > MOST_ALONE
    whole = CoCaLoss(1.0, 1.0)
    logits, labels = torch.randn(16, 3, 5), torch.ones(16, 3, dtype=torch.long)
    assert len(calls_to_maths(whole, (x, y, logits, labels, torch.tensor(3.0)))) <= MOST_ALONE


def test_the_environment_may_change_before_backward(monkeypatch):
    x, y = torch.randn(2, 9, 8, requires_grad=True).unbind()
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "torch")
    loss = infonce.clip_loss_single(x, y, 3.0)
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "no such")
    loss.backward()


def test_the_environment_is_read_on_every_call(monkeypatch):
    x, y = torch.randn(2, 9, 8).unbind()
    infonce.clip_loss_single(x, y, 3.0)
    monkeypatch.setenv(dispatch.BACKEND_VARIABLE, "no such")
    with pytest.raises(ValueError, match="^FASTCLIP_BACKEND='no such' is no backend of infonce"):
        infonce.clip_loss_single(x, y, 3.0)


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1",
    reason="runs in Triton's interpreter: TRITON_INTERPRET=1",
)
def test_a_cached_graph_is_of_the_backend_taken(monkeypatch):
    """A graph is compiled, forgotten, found again on disk, and not found for another backend."""
    pytest.importorskip("triton")
    from torch._dynamo.utils import counters
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

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
            monkeypatch.setenv(dispatch.BACKEND_VARIABLE, backend)
            torch._dynamo.reset()
            counters.clear()
            found = gradients(torch.compile(loss, fullgraph=True))
            hits.append(counters["aot_autograd"]["autograd_cache_hit"])
            torch.testing.assert_close(found, gradients(loss))
    assert hits == [0, 1, 0]
