"""Every objective's losses and gradients against a textbook in fp64; that they can be learned."""

import random

import pytest
import torch
from small import ONE, ROWS, VIRTEX, WORDS, build, micro_batches, tokenizer, without_targets
from torch import Tensor
from torch.nn import functional as F

from fastclip.objectives.token_targets import next_tokens


def taken(objective, batch) -> dict[str, Tensor]:
    """The objective's losses on one undivided batch, with their graph."""
    step = objective.prepare(batch, ONE)
    [micro_batch] = batch
    with torch.no_grad():
        given = objective.given(micro_batch)
    output = objective.network(micro_batch=micro_batch, step=step, given=given)
    losses = dict(output.sums)
    if objective.has_batch_terms:
        losses |= objective.batch_losses(output.features, [given], batch, step)
    return losses


def in_double(name: str, batch: list[dict]):
    """An objective and a copy of its batch, both in fp64 and without dropout or BatchNorm."""
    objective = build(name, dropout=False, batch_norm=False)
    for part in (objective.network, objective.scalars, objective.frozen):
        if part is not None:
            part.double()
    return objective, [dict(micro) for micro in batch]


def softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of both directions' cross entropies; rows of ``targets`` sum to 1."""
    rows = -(targets * logits.log_softmax(1)).sum(1).mean()
    columns = -(targets.T * logits.T.log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def clip(objective, micro):
    image, text = objective.model(micro["image"], micro["text"])
    scale = objective.scalars.logit_scale.exp()
    eye = torch.eye(ROWS, dtype=image.dtype)
    return {"contrastive_loss": softmax_loss(scale * image @ text.T, eye)}


def siglip(objective, micro):
    image, text = objective.model(micro["image"], micro["text"])
    scalars = objective.scalars
    logits = scalars.logit_scale.exp() * image @ text.T + scalars.logit_bias
    signs = 2 * torch.eye(ROWS, dtype=image.dtype) - 1
    return {"contrastive_loss": -F.logsigmoid(signs * logits).sum() / ROWS}


def caption_loss(logits, text):
    """The mean of -log p over what follows each token, up to a text's first end."""
    total, count = 0, 0
    for row, tokens in zip(logits, text.tolist(), strict=True):
        last = tokens.index(tokenizer().eot_id) if tokenizer().eot_id in tokens else len(tokens) - 1
        for place in range(last):
            total = total - row[place].log_softmax(0)[tokens[place + 1]]
            count += 1
    return total / count


def captioning(objective, micro):
    model = objective.model
    return {
        "caption_loss": caption_loss(
            model.head(model(micro["image"], micro["text"])), micro["text"]
        )
    }


def bicaptioning(objective, micro):
    """Two cross entropies, each with logits of its own; texts turned round by hand."""
    model, end = objective.model, tokenizer().eot_id
    turned = torch.full_like(micro["text"], 3)
    lasts = [tokens.index(end) for tokens in micro["text"].tolist()]
    for row, last in enumerate(lasts):
        turned[row, : last + 1] = micro["text"][row, : last + 1].flip(0)
    grid = model.encode_grid(micro["image"])
    loss = 0
    for text, backward in ((micro["text"], False), (turned, True)):
        logits = model.head(model.hidden(grid, text[:, :-1], backward))
        targets = text[:, 1:].clone()
        for row, last in enumerate(lasts):
            targets[row, last:] = -100
        loss = loss + F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    return {"caption_loss": loss}


def masked_lm(objective, micro):
    """Every caption alone, without padding, with the masks that the objective drew."""
    model = objective.model
    prepared = dict(micro)
    objective.prepare([prepared], ONE)
    total, count = 0, 0
    for row, length in enumerate(prepared["lengths"].tolist()):
        text = prepared["masked_text"][row, :length]
        grid = model.encode_grid(micro["image"])[row : row + 1]
        states = model.decoder.embedding(text[None])
        for layer in model.decoder.layers.layers:
            states = layer(
                states,
                model.decoder.grid_projection(grid),
                torch.ones(1, 1, length, length, dtype=torch.bool),
            )
        for place in (text == model.mask_id).nonzero()[:, 0].tolist():
            total = total - model.head(states)[0, place].log_softmax(0)[micro["text"][row, place]]
            count += 1
    assert count > len(micro["text"])
    return {"masked_lm_loss": total / count}


def coca(objective, micro):
    model = objective.model
    image, text, hidden = model(micro["image"], micro["text"])
    logits = objective.scalars.logit_scale.exp() * image @ text.T
    return {
        "caption_loss": 2 * caption_loss(model.head(hidden), micro["text"]),
        "contrastive_loss": softmax_loss(logits, torch.eye(ROWS, dtype=image.dtype)),
    }


def distill(objective, micro):
    image, text = objective.model(micro["image"], micro["text"])
    with torch.no_grad():
        teacher_image, teacher_text = objective.frozen.embed(micro["image"], micro["said"])
    logits = objective.scalars.logit_scale.exp() * image @ text.T
    seen = objective.frozen.scale * teacher_image @ teacher_text.T
    rows = -(seen.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    columns = -(seen.T.softmax(1) * logits.T.log_softmax(1)).sum(1).mean()
    project = objective.network.projections
    cosines = [
        F.cosine_similarity(project["image"](image), teacher_image).mean(),
        F.cosine_similarity(project["text"](text), teacher_text).mean(),
    ]
    return {
        "contrastive_loss": softmax_loss(logits, torch.eye(ROWS, dtype=image.dtype)),
        "distill_loss": (rows + columns) / 2,
        "feature_loss": 0.5 * (1 - (cosines[0] + cosines[1]) / 2),
    }


def icmlm(objective, micro):
    """One word a caption, drawn by its seed; sigmoids of all words of all pictures."""
    model = objective.model
    grid, told = model.encode_grid(micro["image"]), []
    for row, (text, seed) in enumerate(
        zip(micro["said"], micro["mask_seed"].tolist(), strict=True)
    ):
        listed = [w for w in text.split() if w in WORDS[:6]]
        if not listed:
            continue
        place = random.Random(seed).choice([i for i, w in enumerate(text.split()) if w in listed])
        tokens = model.masking.tokenizer
        before, after = text.split()[:place], text.split()[place + 1 :]
        [ids] = tokens([" ".join([*before, "ж", *after])])  # an unknown letter is one piece
        at = torch.tensor([1 + len(tokens.pieces(" ".join(before)))])
        ids[at] = tokens.mask_id
        hidden = model.fusion(grid[row : row + 1], objective.frozen.states(ids[None]), at)
        logits = F.linear(hidden, model.word_head.weight, model.word_head.bias)[0]
        told.append(-logits.log_softmax(0)[WORDS.index(text.split()[place])])
    targets = torch.tensor(
        [[float(w in text.split()) for w in WORDS[:6]] for text in micro["said"]]
    )
    logits = F.linear(grid.mean(1), model.tag_head.weight, model.tag_head.bias)
    tags = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="sum")
    assert 0 < len(told) < ROWS
    return {"masked_word_loss": sum(told) / len(told), "tag_loss": tags / ROWS}


TWINS = {
    "clip": clip,
    "siglip": siglip,
    "captioning": captioning,
    "bicaptioning": bicaptioning,
    "masked_lm": masked_lm,
    "coca": coca,
    "distill": distill,
}
TWINS |= {"icmlm_tfm": icmlm, "icmlm_attfc": icmlm}


def numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    return {key: float(value.detach()) for key, value in losses.items()}


def gradients(objective, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    named = dict(objective.network.named_parameters())
    if objective.scalars is not None:
        named |= dict(objective.scalars.named_parameters())
    found = torch.autograd.grad(sum(losses.values()), list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


@pytest.mark.parametrize("name", TWINS)
def test_losses_and_gradients_are_the_textbooks(name):
    objective, [micro] = in_double(name, micro_batches(1))
    wanted = TWINS[name](objective, micro)
    exact = gradients(objective, wanted)
    found = taken(objective, [dict(micro)])
    assert numbers(found) == pytest.approx(numbers(wanted), rel=1e-6)
    whole = torch.cat([g.flatten() for g in exact.values() if g is not None]).norm()
    for key, gradient in gradients(objective, found).items():
        if exact[key] is None:
            assert gradient is None or not gradient.any(), key
        else:
            # Features' distance is taken in fp32 whatever the towers compute in.
            bar = (1e-6 if name == "distill" else 1e-10) * (exact[key].norm() + 1e-3 * whole)
            assert (gradient - exact[key]).norm() <= bar, key


def test_a_captioner_learns_nothing_of_what_follows_the_end():
    objective, [micro] = in_double("captioning", micro_batches(1))
    before = taken(objective, [dict(micro)])["caption_loss"]
    text = micro["text"].clone()
    for row, tokens in zip(text, micro["text"].tolist(), strict=True):
        row[tokens.index(tokenizer().eot_id) + 1 :] = 7
    changed = taken(objective, [{**micro, "text": text}])["caption_loss"]
    assert float(changed.detach()) == pytest.approx(float(before.detach()), rel=1e-12)


def test_targets_end_with_the_first_end():
    end = tokenizer().eot_id
    text = torch.tensor([[1, 2, end, end, 0], [1, 3, 4, 5, 6], [end, 0, 0, 0, 0]])
    found = next_tokens(text, end)
    assert found.length == 5
    assert found.targets.tolist() == [2, end, 3, 4, 5, 6]
    assert found.places.tolist() == [0, 1, 4, 5, 6, 7]
    short = next_tokens(text[[0, 2]], end)
    assert (short.length, short.targets.tolist()) == (3, [2, end])
    assert next_tokens(text[:0], end).targets.tolist() == []
    assert next_tokens(text[2:], end).length == 1


def sixty_four() -> dict:
    """64 records in one micro-batch."""
    parts = [micro_batches(1, seed)[0] for seed in range(4)]
    return {
        name: torch.cat([part[name] for part in parts])
        if isinstance(parts[0][name], Tensor)
        else [value for part in parts for value in part[name]]
        for name in parts[0]
    }


@pytest.mark.parametrize("name", TWINS)
def test_64_samples_are_learned(name):
    """Pictures find their captions, or captions are foreseen, after a few steps on the same 64."""
    objective = build(name, dropout=False)
    batch = sixty_four()
    parameters = [*objective.network.parameters()]
    if objective.scalars is not None:
        parameters += objective.scalars.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, fused=True)
    history = []
    for _ in range(60):
        losses = taken(objective, [dict(batch)])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        objective.after_step()
        history.append(numbers(losses))
    if objective.has_batch_terms:
        with torch.no_grad():
            image, text, *_ = objective.model(batch["image"], batch["text"])
        # A caption that two pictures share is right for both.
        found = [batch["said"][row] for row in (image @ text.T).argmax(1).tolist()]
        right = sum(a == b for a, b in zip(found, batch["said"], strict=True))
        assert right > 0.8 * len(found), (right, history[-1])
    for key in ("caption_loss", "masked_lm_loss", "feature_loss", "masked_word_loss"):
        if key in history[0]:
            assert history[-1][key] < 0.4 * history[0][key], history[-1]


@pytest.mark.parametrize("name", VIRTEX)
def test_a_step_without_targets_keeps_a_graph(name):
    objective, batch = in_double(name, without_targets(micro_batches(1), range(1)))
    losses = taken(objective, batch)
    assert list(numbers(losses).values()) == [0]
    assert not any(g.any() for g in gradients(objective, losses).values() if g is not None)
