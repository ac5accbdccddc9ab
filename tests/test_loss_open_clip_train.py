"""open_clip's own training loop, unchanged, with our losses in place of its own."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip import loss as theirs
from open_clip_train.train import train_one_epoch

from fastclip import loss as ours

BATCH, BATCHES, TOKENS, VOCABULARY = 6, 4, 8, 40


class Loader(list):
    num_batches = BATCHES
    num_samples = BATCH * BATCHES


class Data:
    """What the loop asks of open_clip's DataInfo, over random pictures and captions."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.dataloader = Loader(
            (
                torch.randn(BATCH, 3, 32, 32, generator=generator),
                torch.randint(1, VOCABULARY, (BATCH, TOKENS), generator=generator),
            )
            for _ in range(BATCHES)
        )

    def set_epoch(self, epoch: int) -> None:
        pass


def model(seed: int, **options) -> open_clip.CLIP:
    torch.manual_seed(seed)
    vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
    text = {
        "context_length": TOKENS, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 1
    }  # fmt: skip
    return open_clip.CLIP(16, vision, text, output_dict=True, **options)


def arguments(**overrides) -> SimpleNamespace:
    values = {
        "device": "cpu", "precision": "fp32", "distill": False, "accum_freq": 1,
        "skip_scheduler": True, "grad_clip_norm": 1.0, "horovod": False, "log_every_n_steps": 1,
        "rank": 0, "local_rank": 0, "world_size": 1, "batch_size": BATCH, "wandb": False,
    }  # fmt: skip
    return SimpleNamespace(**values | overrides)


def trained(loss: torch.nn.Module, args: SimpleNamespace, **options) -> dict[str, torch.Tensor]:
    student, teacher = model(0, **options), model(1)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    scalar_log = {}

    class Writer:
        def add_scalar(self, name, value, step):
            scalar_log[f"{name} {step}"] = torch.tensor(value)

    train_one_epoch(
        student, {"train": Data()}, loss, 0, optimizer, None, None, teacher, args, Writer()
    )
    logged = {name: v for name, v in scalar_log.items() if "_time" not in name and "/s" not in name
              and "samples" not in name}  # fmt: skip
    return logged | {name: p.detach() for name, p in student.named_parameters()}


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("ClipLoss", arguments(), {}),
        ("ClipLoss", arguments(accum_freq=2), {}),
        ("ClipLoss", arguments(), {"init_logit_bias": -1.0}),
        ("DistillClipLoss", arguments(distill=True), {}),
        ("SigLipLoss", arguments(), {"init_logit_bias": -10.0}),
    ],
    ids=["clip", "clip accumulated", "clip with bias", "distill", "siglip"],
)
def test_open_clips_loop_trains_the_same_model(name, args, options):
    found = trained(getattr(ours, name)(), args, **options)
    expected = trained(getattr(theirs, name)(), args, **options)
    start = dict(model(0, **options).named_parameters())
    assert any("contrastive_loss" in key for key in found)
    assert (found["visual.proj"] - start["visual.proj"]).abs().max() > 1e-3
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5, msg=key)
    assert found.keys() == expected.keys()


def test_open_clips_loop_under_bf16_autocast():
    """The same steps, up to what 16-bit logits cost open_clip."""
    found = trained(ours.ClipLoss(), arguments(precision="amp_bf16"))
    expected = trained(theirs.ClipLoss(), arguments(precision="amp_bf16"))
    for name, start in model(0).named_parameters():
        step = (expected[name] - start.detach()).norm()
        assert (found[name] - expected[name]).norm() <= 0.15 * step + 1e-5, name
