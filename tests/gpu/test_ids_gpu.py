"""Ids and extra texts on a GPU against float64."""

import pytest
from gpu_checks import AMPLE, DTYPES, Exact, need
from ids_checks import check

pytestmark = [
    pytest.mark.parametrize("dtype", DTYPES, ids=str),
    pytest.mark.parametrize("backend", ["triton"]),
    pytest.mark.parametrize("loss, operation", [
        pytest.param("clip", "infonce", marks=pytest.mark.accuracy(operation="infonce")),
        pytest.param("siglip", "sigmoid", marks=pytest.mark.accuracy(operation="sigmoid")),
    ]),
    pytest.mark.parametrize("same", ["positive", "ignore"]),
]  # fmt: skip


@pytest.fixture(autouse=True)
def available(operation, backend, dtype):
    need(operation, backend, dtype)


@pytest.mark.parametrize("workspace_bytes", [AMPLE, 2**23])
@pytest.mark.parametrize("kind", ["five", "one", "none"])
@pytest.mark.parametrize("n, width", [(1, 8), (129, 65), (1000, 96)])
def test_exact(n, width, kind, workspace_bytes, same, loss, operation, backend, dtype):
    with Exact():
        check(
            loss, "normalised", n, 7, width, 14.3, kind, same, dtype, gpu=True, device="cuda",
            backend=backend, workspace_bytes=workspace_bytes,
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["unnormalised", "aligned", "converged", "outlier"])
def test_exact_on_any_features(kind, same, loss, operation, backend, dtype):
    with Exact():
        check(
            loss, kind, 513, 9, 72, 100.0, "five", same, dtype, gpu=True, device="cuda",
            backend=backend,
        )  # fmt: skip
