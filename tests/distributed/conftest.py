from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gloo_pool import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Callable[..., Pool]]:
    """``pool(world, backend="gloo")``: one set of processes for each, for the whole session."""
    pools: dict[tuple[int, str], Pool] = {}

    def get(world: int, backend: str = "gloo") -> Pool:
        new = Pool(world, backend, Path(__file__).parent, "gloo_cases")
        return pools.setdefault((world, backend), new)

    yield get
    for started in pools.values():
        started.close()
