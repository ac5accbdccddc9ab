"""Optimizers under DeepSpeed: every stage and precision steps and resumes as the textbook's loop.

One spawned set of processes per world size runs all cases.
"""

import gc
import shutil
import tempfile
from itertools import chain, product
from pathlib import Path

import optimizer_textbook
import pytest
import torch
from ranks import run_ranks
from torch import Tensor, nn

from fastclip.training.options.optim import OptimConfig
from fastclip.training.schedules import Schedule

STEPS, SAVED_AT = 12, 7
# The weights are looked at after these steps; Lookahead meets its slow weights after 5 and 10.
SEEN = (1, 5, 7, 10, 12)
RECIPES = {
    "adamw": {"opt": "adamw", "beta2": 0.9},
    "sgd": {"opt": "sgd", "momentum": 0.0},
    "adamw, lookahead": {"opt": "adamw", "beta2": 0.9, "lookahead_k": 5},
    "nesterov, lookahead": {"opt": "sgd", "nesterov": True, "lookahead_k": 5},
}
STAGES = [0, 1, 2, 3]
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
BOTH = ["adamw, lookahead", "nesterov, lookahead"]
CASES = {
    1: [*product(["fp32"], STAGES, RECIPES)],
    2: [*product(["fp32", "bf16"], STAGES, BOTH), *product(["amp_bf16"], STAGES, BOTH[:1])],
}
if torch.ops.mkldnn._is_mkldnn_fp16_supported():
    CASES[2] += product(["fp16"], [0], BOTH)  # where DeepSpeed steps on zero gradients
HEAD_RATE, HEAD_DECAY = 0.125, 0.3


def recipe(name: str) -> OptimConfig:
    values = {"lr": 0.05, "wd": 0.1, "warmup": 3, "lr_scheduler": "multi-step"}
    options = OptimConfig(**values, lr_milestones=(6, 9), lr_gamma=0.5, **RECIPES[name])
    options.check()
    return options


def slope(name: str, shape: torch.Size, step: int) -> Tensor:
    """Quarters from -2 to 2, which every dtype holds exactly; they change from step to step."""
    generator = torch.Generator().manual_seed(10_000 * step + sum(map(ord, name)))
    return torch.randint(-8, 9, shape, generator=generator) / 4


def curvature(precision: str) -> float:
    """In 16 bits gradients are exact where they do not depend on the weights."""
    return 0.0 if precision in NARROW else 1.0


class Part(nn.Module):
    """One part of the loss: ``slope * w + curvature / 2 * w ** 2``, summed over its weights."""

    def __init__(self, name: str, rows: int, columns: int):
        super().__init__()
        self.name = name
        self.first = nn.Parameter(torch.randn(rows, columns))
        self.gain = nn.Parameter(torch.randn(columns))
        self.second = nn.Parameter(torch.randn(columns, 2))

    def forward(self, step: int, offset: float, curvature: float) -> Tensor:
        loss = torch.zeros([])
        for name, w in self.named_parameters():
            slopes = slope(f"{self.name}.{name}", w.shape, step) + offset
            loss = loss + (w * (slopes.to(w.dtype) + curvature / 2 * w)).sum()
        return loss


class Network(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.head = Part("body", 3, 5), Part("head", 2, 7)

    def forward(self, *arguments) -> Tensor:
        return self.body(*arguments) + self.head(*arguments)


def expected(precision: str, name: str) -> list[dict[str, Tensor]]:
    options = recipe(name)
    schedule = Schedule(options, STEPS, STEPS)
    start = {n: p.detach() for n, p in Network(seed=0).named_parameters()}
    start = {n: p.to(NARROW.get(precision)) for n, p in start.items()}
    bend = curvature(precision)
    decay = {"body": options.wd, "head": HEAD_DECAY}
    base = {"body": options.lr, "head": HEAD_RATE}
    return optimizer_textbook.train(
        start,
        lambda n, w, step: slope(n, w.shape, step).double() + bend * w,
        options,
        decay={n: 0.0 if "gain" in n else decay[n[:4]] for n in start},
        rate=lambda n, step: schedule.rate(base[n[:4]], step),
        steps=STEPS,
    )


def engine_for(precision: str, stage: int, options: OptimConfig, world_size: int, seed: int):
    """DeepSpeed's engine for a network with weights from ``seed``."""
    import deepspeed

    from fastclip.training.optimizers import build_optimizer, split_decay, without_initial_step

    # At stage 3 a group of ours becomes several partitions that are stepped one by one.
    zero = {"stage": stage, "sub_group_size": 4, "stage3_param_persistence_threshold": 0}
    config = {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
    if precision == "amp_bf16":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif precision in NARROW:
        config[precision] = {"enabled": True}
        if precision == "fp16":
            config["fp16"]["loss_scale"] = 1.0
        elif stage:
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    network = Network(seed)
    body = split_decay(network.body.named_parameters(), options.wd)
    head = split_decay(network.head.named_parameters(), HEAD_DECAY, lr=HEAD_RATE)
    optimizer = build_optimizer([*body, *head], options)
    with without_initial_step(optimizer):
        engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
    return engine


def take_steps(engine, precision, options, ranks, steps: range) -> list[dict[str, Tensor]]:
    """The fp32 weights after those of ``steps`` that are seen."""
    from fastclip.training.optimizers import set_learning_rate

    history = []
    # Ranks differ by offsets whose mean is 0.
    offset = {1: (0.0,), 2: (-0.5, 0.5)}[ranks.world_size][ranks.rank]
    for step in steps:
        set_learning_rate(engine.optimizer, Schedule(options, STEPS, STEPS), step)
        engine.backward(engine(step, offset, curvature(precision)))
        engine.step()
        if step + 1 in SEEN:
            history.append(masters(engine))
    return history


def masters(engine) -> dict[str, Tensor]:
    """The whole fp32 weights that the optimizer updates."""
    from deepspeed.utils import safe_get_full_fp32_param

    kept = {}
    if hasattr(engine.optimizer, "fp32_groups"):  # 16 bits at stage 0
        pairs = chain(*engine.optimizer.fp16_groups), chain(*engine.optimizer.fp32_groups)
        kept = {id(narrow): master for narrow, master in zip(*pairs, strict=True)}
    found = {}
    for name, weight in engine.module.named_parameters():
        master = kept.get(id(weight))
        master = safe_get_full_fp32_param(weight) if master is None else master
        found[name] = (weight if master is None else master).detach().clone()
    return found


def every_case(rank: int, folder: Path) -> dict:
    """Per case the weights after the seen steps, and after those that follow a resume."""
    from fastclip.training import checkpoint, distributed
    from fastclip.training.gradients import average_gradients

    ranks = distributed.start()
    found = {}
    for case in CASES[ranks.world_size]:
        precision, stage, name = case
        options = recipe(name)
        # DeepSpeed collects garbage ten times an engine, and need not search all of torch for it.
        gc.freeze()
        engine = engine_for(precision, stage, options, ranks.world_size, seed=0)
        first = take_steps(engine, precision, options, ranks, range(SAVED_AT))
        path = checkpoint.save(
            folder, SAVED_AT, engine, {}, rank=rank, world_size=ranks.world_size, keep=1
        )
        last = take_steps(engine, precision, options, ranks, range(SAVED_AT, STEPS))
        engine.destroy()

        engine = engine_for(precision, stage, options, ranks.world_size, seed=1)
        checkpoint.load_engine(path, engine)
        resumed = take_steps(engine, precision, options, ranks, range(SAVED_AT, STEPS))
        engine.destroy()
        found[case] = first + last, resumed

    scalars = nn.Linear(2, 1)
    for value, parameter in enumerate(scalars.parameters()):
        parameter.grad = torch.full_like(parameter, 2.0 * rank + value)
    average_gradients(scalars, ranks.world_size)
    found["averaged"] = [float(p.grad.mean()) for p in scalars.parameters()]
    distributed.stop()
    return found


@pytest.fixture(scope="module")
def found():
    """What the ranks of 1 and of 2 processes found."""
    folder = Path(tempfile.mkdtemp())
    yield {world_size: run_ranks(every_case, world_size, folder) for world_size in CASES}
    shutil.rmtree(folder)


EVERY = [pytest.param(size, case, id=f"{size}: {case}") for size in CASES for case in CASES[size]]


@pytest.mark.parametrize(("world_size", "case"), EVERY)
def test_steps_are_the_textbooks(found, world_size, case):
    wanted = [expected(case[0], case[2])[step - 1] for step in SEEN]
    for seen, _ in (of_rank[case] for of_rank in found[world_size]):
        for now, right in zip(seen, wanted, strict=True):
            for name, value in right.items():
                assert now[name].dtype == torch.float32
                # A dozen steps of some ten roundings of numbers up to 4, each 6e-8.
                torch.testing.assert_close(now[name].double(), value, rtol=0, atol=3e-5)


@pytest.mark.parametrize(("world_size", "case"), EVERY)
def test_a_resumed_run_goes_on_to_the_same_bits(found, world_size, case):
    for seen, resumed in (of_rank[case] for of_rank in found[world_size]):
        assert len(resumed) == 2
        torch.testing.assert_close(resumed, seen[-2:], rtol=0, atol=0)


def test_gradients_of_scalars_are_averaged(found):
    for world_size, ranks in found.items():
        for of_rank in ranks:
            assert of_rank["averaged"] == [world_size - 1.0, float(world_size)]
