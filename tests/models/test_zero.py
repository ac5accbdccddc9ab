"""The models under DeepSpeed with parameters partitioned over two processes."""

import pytest
import torch
from ranks import run_ranks
from torch import nn
from torch.nn import functional as F

from fastclip.models import DualEncoder, create_captioner, create_coca, create_model

ROWS, STEPS, LR = 4, 3, 0.1
TIMEOUT = 360
# (network, model, ZeRO stage, bf16)
CASES = [
    ("towers", "tiny-vit", 3, False),
    ("towers", "tiny-resnet", 3, False),
    ("towers", "tiny-convnet", 1, True),
    ("captioner", "tiny-convnet", 3, False),
    ("captioner", "timm:test_vit", 3, False),  # a trunk with parameters of its own
    ("coca", "tiny-vit", 3, False),
]


def batch(rank: int):
    generator = torch.Generator().manual_seed(rank)
    image = torch.randint(0, 256, (ROWS, 3, 32, 32), dtype=torch.uint8, generator=generator)
    text = torch.randint(1, 599, (ROWS, 12), generator=generator)
    text[:, 8] = 599
    return image, text


def contrastive_loss(image, text):
    return F.cross_entropy(10 * image.float() @ text.float().T, torch.arange(ROWS))


def caption_loss(head, hidden, text):
    """The mean cross entropy of each next token, taken inside the head's forward."""

    def loss(*layer):
        return F.cross_entropy(F.linear(*layer).flatten(0, 1), text[:, 1:].flatten())

    return head(hidden[:, :-1], loss)


class Losses(nn.Module):
    """Pictures and texts to the loss of one of the three models."""

    def __init__(self, kind: str, name: str):
        super().__init__()
        tokens = {"vocab_size": 600, "context_length": 12, "eot_id": 599, "image_size": 32}
        decoder = {"decoder_width": 32, "decoder_layers": 1, "decoder_heads": 2}
        if kind == "towers":
            self.model: nn.Module = create_model(name, **tokens)
        elif kind == "captioner":
            options = {"dropout": 0.0, "bidirectional": True}
            self.model = create_captioner(name, **tokens, **decoder, **options)
        else:
            self.model = create_coca(name, **tokens, **decoder)
        self.kind = kind

    def forward(self, image, text):
        model = self.model
        if self.kind == "towers":
            return contrastive_loss(*model(image, text))
        if self.kind == "coca":
            image_features, text_features, hidden = model(image, text)
            contrastive = contrastive_loss(image_features, text_features)
            return contrastive + caption_loss(model.head, hidden, text)
        grid, reverse = model.encode_grid(image), text.flip(1)
        forward = caption_loss(model.head, model.hidden(grid, text), text)
        backward = caption_loss(model.head, model.hidden(grid, reverse, backward=True), reverse)
        return forward + backward

    @torch.no_grad()
    def evaluate(self, image, text):
        """What an evaluation between two steps runs: a part of the model alone."""
        if isinstance(self.model, DualEncoder):
            return self.model.encode_text(text)
        grid = self.model.encode_grid(image)
        return [self.model.next_token_logits(grid, text[:, :length]) for length in (1, 2)]


def train_all(rank: int) -> list[list[float]]:
    """The losses of every case on this rank."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    found = [train_under_deepspeed(rank, *case) for case in CASES]
    torch.distributed.destroy_process_group()
    return found


def train_under_deepspeed(rank: int, kind: str, name: str, stage: int, bf16: bool) -> list[float]:
    import deepspeed

    torch.manual_seed(0)
    network = Losses(kind, name)
    network.model.set_grad_checkpointing(True)
    config = {
        "train_micro_batch_size_per_gpu": ROWS,
        "gradient_clipping": 0.0,
        "bf16": {"enabled": bf16},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
    }
    engine, *_ = deepspeed.initialize(
        model=network, optimizer=torch.optim.SGD(network.parameters(), lr=LR), config=config
    )
    losses = []
    for step in range(STEPS):
        if step == 1:
            engine.module.evaluate(*batch(rank))
        loss = engine(*batch(rank))
        losses.append(loss.item())
        engine.backward(loss)
        engine.step()
    engine.destroy()
    return losses


def train_plainly(kind: str, name: str) -> list[list[float]]:
    """The same steps in one process: the mean of both ranks' losses."""
    torch.manual_seed(0)
    network = Losses(kind, name)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    history: list[list[float]] = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        history.append([])
        for rank in range(2):
            loss = network(*batch(rank))
            (loss / 2).backward()
            history[-1].append(loss.item())
        optimizer.step()
    return [list(column) for column in zip(*history, strict=True)]


@pytest.fixture(scope="module")
def losses():
    """Of each case, those of both ranks."""
    found = run_ranks(train_all, 2, timeout=TIMEOUT)
    return dict(zip(CASES, zip(found[0], found[1], strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_losses_equal_those_of_plain_training(losses, case):
    kind, name, _, bf16 = case
    found = torch.tensor(losses[case])
    tolerance = 0.05 if bf16 else 1e-5
    torch.testing.assert_close(
        found, torch.tensor(train_plainly(kind, name)), rtol=tolerance, atol=tolerance
    )
