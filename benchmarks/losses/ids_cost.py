"""What ids cost a loss on a CPU, beside the plain loss in the same run.

    python -m benchmarks.losses.ids_cost [--rows 8192] [--width 512] [--rounds 7]

Every round runs a forward and backward pass of the plain loss and of the loss with each set of ids,
one after the other; printed are the medians of the rounds' ratios, by the processor's own time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastclip.loss import clip_loss, siglip_loss


def seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = options.rows
    torch.manual_seed(0)
    image, text = (normalize(t, dim=1) for t in torch.randn(2, rows, options.width))
    leaves = [image.requires_grad_(), text.requires_grad_(), torch.tensor(14.3, requires_grad=True)]
    places = torch.randperm(rows)
    ids = {"distinct": places, "five times": places // 5}

    for loss in (clip_loss, siglip_loss):

        def step(given: Tensor | None, same: str, loss: Callable[..., Tensor] = loss) -> None:
            torch.autograd.grad(loss(*leaves, -10.0, ids=given, same=same), leaves)

        cases = [(name, same) for name in ids for same in ("positive", "ignore")]
        ratios: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        plain: list[float] = []
        step(None, "positive")
        for _ in range(options.rounds):
            before = seconds(partial(step, None, "positive"))
            for case in cases:
                name, same = case
                own = seconds(partial(step, ids[name], same))
                after = seconds(partial(step, None, "positive"))
                ratios[case].append(2 * own / (before + after))
                plain.append(after)
                before = after
        print(f"{loss.__name__}: plain {statistics.median(plain):.2f} s")
        for (name, same), found in ratios.items():
            print(f"  ids {name}, {same}: {statistics.median(found):.3f} x")


if __name__ == "__main__":
    main()
