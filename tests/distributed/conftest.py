from collections.abc import Callable, Iterator

import pytest
from gloo_pool import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Callable[..., Pool]]:
    """``pool(world, backend="gloo")``: one set of processes for each, for the whole session."""
    pools: dict[tuple[int, str], Pool] = {}

    def get(world: int, backend: str = "gloo") -> Pool:
        return pools.setdefault((world, backend), Pool(world, backend))

    yield get
    for started in pools.values():
        started.close()
