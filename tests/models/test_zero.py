"""The towers under DeepSpeed with parameters partitioned over two processes."""

import os
import time
from multiprocessing import get_context

import pytest
import torch
from ports import free_port
from torch.multiprocessing import start_processes
from torch.nn.functional import cross_entropy

from fastclip.models import create_model

ROWS, STEPS, LR = 4, 3, 0.1
TIMEOUT = 240
# (model, ZeRO stage, bf16)
CASES = [("tiny-vit", 3, False), ("tiny-resnet", 3, False), ("tiny-convnet", 1, True)]


def batch(rank: int):
    generator = torch.Generator().manual_seed(rank)
    image = torch.randint(0, 256, (ROWS, 3, 32, 32), dtype=torch.uint8, generator=generator)
    text = torch.randint(1, 599, (ROWS, 12), generator=generator)
    text[:, 8] = 599
    return image, text


def local_loss(features):
    image, text = (f.float() for f in features)
    return cross_entropy(10 * image @ text.T, torch.arange(ROWS))


def serve(rank: int, port: int, results) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    results.put((rank, [train_under_deepspeed(rank, *case) for case in CASES]))
    torch.distributed.destroy_process_group()


def train_under_deepspeed(rank: int, name: str, stage: int, bf16: bool) -> list[float]:
    import deepspeed

    torch.manual_seed(0)
    model = create_model(name, vocab_size=600, context_length=12, image_size=32)
    model.set_grad_checkpointing(True)
    config = {
        "train_micro_batch_size_per_gpu": ROWS,
        "gradient_clipping": 0.0,
        "bf16": {"enabled": bf16},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=LR), config=config
    )
    losses = []
    for step in range(STEPS):
        if step == 1:  # an evaluation between two steps, one tower alone
            with torch.no_grad():
                engine.module.encode_text(batch(rank)[1])
        loss = local_loss(engine(*batch(rank)))
        losses.append(loss.item())
        engine.backward(loss)
        engine.step()
    engine.destroy()
    return losses


def train_plainly(name: str) -> list[list[float]]:
    """The same steps in one process: the mean of both ranks' losses."""
    torch.manual_seed(0)
    model = create_model(name, vocab_size=600, context_length=12, image_size=32)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    history: list[list[float]] = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        history.append([])
        for rank in range(2):
            loss = local_loss(model(*batch(rank)))
            (loss / 2).backward()
            history[-1].append(loss.item())
        optimizer.step()
    return [list(column) for column in zip(*history, strict=True)]


@pytest.fixture(scope="module")
def losses():
    """Of each case, those of both ranks."""
    context = get_context("forkserver")
    # Imported once, and both ranks are forked from that.
    context.set_forkserver_preload(
        ["deepspeed", "timm", "transformers.generation", "torch._inductor"]
    )
    results = context.SimpleQueue()
    ranks = start_processes(
        serve, (free_port(), results), nprocs=2, join=False, start_method="forkserver"
    )
    deadline = time.monotonic() + TIMEOUT
    while not ranks.join(timeout=1):
        if time.monotonic() > deadline:
            for process in ranks.processes:
                process.kill()
            pytest.fail(f"no end within {TIMEOUT} s")
    found = dict(results.get() for _ in ranks.processes)
    return dict(zip(CASES, zip(found[0], found[1], strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_losses_equal_those_of_plain_training(losses, case):
    name, _, bf16 = case
    found = torch.tensor(losses[case])
    tolerance = 0.05 if bf16 else 1e-5
    torch.testing.assert_close(
        found, torch.tensor(train_plainly(name)), rtol=tolerance, atol=tolerance
    )
