"""How many calls of our own lead from a loss over ranks to its maths."""

import gloo_cases
import pytest

# From ``ClipLoss.forward`` to the first line of the backend's ``forward``, that call included.
MOST_OVER_RANKS = 8


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("flags", [(True, True), (False, True), (False, False)])
def test_calls_over_ranks(pool, world, flags):
    for calls in pool(world).results(gloo_cases.calls_of_clip, *flags):
        assert calls[-1].endswith("infonce/torch_backend.py:forward")
        assert len(calls) <= MOST_OVER_RANKS, calls
        assert sum("dispatch.py" in call for call in calls) == 1, calls
