"""Small instances of every objective, and the batches that they train on."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torchvision
from listed_sources import ListedRecords
from small_bert import small_bert
from step_loader import StepLoader
from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.data.augment import AugmentConfig
from fastclip.data.fields import LABEL, PICTURE
from fastclip.data.fields.offsets import row_offsets
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.build import build_loader
from fastclip.data.sources.base import Record
from fastclip.data.sources.spec import DataSpec
from fastclip.data.text.bpe import BpeTokenizer, train_bpe
from fastclip.data.text.word_piece import WordPieceTokenizer
from fastclip.models.options import ModelConfig, build_dual_encoder
from fastclip.models.teacher import Teacher
from fastclip.models.text_encoder import open_text_encoder
from fastclip.objectives import find_objective
from fastclip.objectives.base import Objective, Output, Parts
from fastclip.objectives.tag_prediction import TagPrediction
from fastclip.training.config import train_config

ONE = Ranks(0, 1, torch.device("cpu"))
ROWS, SIDE, LENGTH = 16, 16, 8
WORDS = ("red", "green", "blue", "one", "two", "ring", "star", "heart")
VIRTEX = ("captioning", "bicaptioning", "masked_lm")
OBJECTIVES = ("clip", "siglip", *VIRTEX, "coca", "distill", "labels")
OBJECTIVES += ("icmlm_tfm", "icmlm_attfc", "tp_postag", "tp_cluster", "tp_label")
OBJECTIVES += ("token_classification", "multilabel_classification")
WITH_BERT = ("icmlm_tfm", "icmlm_attfc")
CONFIG = ModelConfig(model="tiny-convnet", image_size=SIDE)
AUGMENT = AugmentConfig(hflip=0.5, padding=1, brightness=0.3, hue=0.1)
DECODER = {"decoder_width": 32, "decoder_layers": 1, "decoder_heads": 2}
FLAGS = {
    **dict.fromkeys((*VIRTEX, "coca"), DECODER),
    "masked_lm": {**DECODER, "mask_proportion": 0.4},
    "distill": {"feature_weight": 0.5},
    "icmlm_tfm": {"fusion_heads": 2, "fusion_layers": 2},
    "icmlm_attfc": {"fusion_heads": 2, "att_query": "all", "att_fuse": "concat"},
}


@functools.cache
def tokenizer() -> BpeTokenizer:
    return train_bpe([" ".join(WORDS)] * 4, 560, LENGTH)


@functools.cache
def bert_folder() -> tempfile.TemporaryDirectory:
    """A folder of a BERT that knows the first words as pieces and spells the others."""
    folder = tempfile.TemporaryDirectory()
    small_bert(Path(folder.name), WORDS[:5])
    return folder


@functools.cache
def pieces() -> WordPieceTokenizer:
    """That BERT's tokenizer."""
    return WordPieceTokenizer(open_text_encoder(bert_folder().name).definition, 2 * LENGTH)


def learned_of(name: str) -> dict:
    """What an objective that predicts tags learned of captions of :data:`WORDS`."""
    if name == "tp_cluster":
        centroids = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
        fingerprint = open_text_encoder(bert_folder().name).fingerprint
        return {"tags": list("abcd"), "centroids": centroids, "fingerprint": fingerprint}
    return {"tags": list(WORDS)}


def bert_parts(config: ModelConfig, ranks: Ranks = ONE, **how) -> Parts:
    """What an objective on that BERT is built from."""
    encoder = open_text_encoder(bert_folder().name)
    learned = {"words": WORDS[:6], "width": encoder.width, "fingerprint": encoder.fingerprint}
    pieces = WordPieceTokenizer(encoder.definition, 2 * LENGTH)
    return Parts(config, pieces, ranks, 1 << 20, learned=learned, **how)


@dataclass(kw_only=True)
class LabelsOptions:
    """Flags of the objective below: none."""


class Classifier(nn.Module):
    """A linear layer on pixels, dropped out, and a linear classifier of two."""

    image_size = SIDE

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3 * SIDE * SIDE, 8), nn.Tanh(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 2)

    def features(self, image: Tensor) -> Tensor:
        return self.body(image.flatten(1).float() / 255)

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        logits = self.head(self.features(micro_batch["image"]))
        labels = micro_batch.get("extra")
        if labels is None:
            labels = step["labels"][[int(key.split("/")[-1]) for key in micro_batch["key"]]]
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        return Output(sums={"label_loss": loss / step["rows"]})


class HalfByHalf:
    """As many records of label 0 as of label 1, with replacement; the label goes with each."""

    def samples_an_epoch(self, index):
        return len(index)

    def epoch(self, index, seed, epoch):
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        labels = torch.arange(len(index)) % 2
        places = [(index.labels % 2 == label).nonzero()[:, 0] for label in (0, 1)]
        chosen = torch.stack(
            [places[k][torch.randint(len(places[k]), (1,), generator=generator)] for k in labels]
        )
        return chosen[:, 0], labels


class Labels(Objective):
    """Predicts which half of the set a picture's first feature lies in, asked anew each epoch."""

    Options = LabelsOptions
    summary = "labels made of the set before every epoch"
    paper = "none"
    fields = (PICTURE,)

    def __init__(self, options, parts):
        self.options = options
        self.model = self.network = Classifier()
        self.labels = torch.zeros(64, dtype=torch.int64)

    def prepare(self, batch, ranks):
        rows = ranks.total([sum(len(micro["image"]) for micro in batch)])[0]
        return {"labels": self.labels, "rows": rows}

    def before_epoch(self, epoch, over_the_set):
        first = over_the_set(lambda micro: self.network.features(micro["image"]))[:, 0]
        self.labels = (first > first.median()).long()
        generator = torch.Generator().manual_seed(epoch)
        return {"head.weight": 0.1 * torch.randn(2, 8, generator=generator)}

    def state(self):
        return {"labels": self.labels}

    def load_state(self, state):
        self.labels = state["labels"]


class Sampled(Labels):
    """Predicts the label that its sampler drew a record for."""

    summary = "records drawn by label"
    sampler = HalfByHalf()

    def prepare(self, batch, ranks):
        rows = ranks.total([sum(len(micro["image"]) for micro in batch)])[0]
        return {"labels": torch.arange(0), "rows": rows}

    def before_epoch(self, epoch, over_the_set):
        return {}


class LabelsAndSampler(Labels):
    """Records drawn by their own label; which half they lie in is asked before every epoch."""

    summary = "labels made of the set, of records drawn by label"
    sampler = HalfByHalf()

    def prepare(self, batch, ranks):
        for micro_batch in batch:
            del micro_batch["extra"]
        return super().prepare(batch, ranks)


def build(
    name: str,
    ranks: Ranks = ONE,
    dropout: bool = True,
    batch_norm: bool = True,
    config: ModelConfig = CONFIG,
):
    """An objective with weights from seed 0; ``config`` may name another tower than the small."""
    torch.manual_seed(0)
    parts = Parts(config, tokenizer(), ranks, 1 << 20, lambda _: teacher(config))
    if name in ("labels", "sampled"):
        return {"labels": Labels, "sampled": Sampled}[name](LabelsOptions(), parts)
    cls = find_objective(name)
    flags = dict(FLAGS.get(name, {}))
    if name == "distill":
        flags["teacher"] = "a teacher"
    if name in WITH_BERT:
        flags["text_encoder"] = bert_folder().name
        parts = bert_parts(config, ranks, open_teacher=lambda _: None)
        torch.manual_seed(0)
    if name in VIRTEX:
        flags["decoder_dropout"] = 0.1 if dropout else 0.0
    if issubclass(cls, TagPrediction):
        parts = replace(parts, learned=learned_of(name))
    if name == "tp_cluster":
        flags["text_encoder"] = bert_folder().name
        parts = replace(parts, tokenizer=pieces())
    objective = cls(cls.Options(**flags), parts)
    objective.tokenizer = parts.tokenizer
    if config is not CONFIG:
        return objective
    visual = objective.model.visual
    for stage in visual.stages:  # at zero, the convolutions before it get no gradient
        nn.init.constant_(stage.norm2.weight, 0.5)
        if not batch_norm:
            stage.norm, stage.norm1, stage.norm2 = (nn.Identity() for _ in range(3))
    if dropout and hasattr(objective.model, "encode_text"):
        visual.projection = nn.Sequential(nn.Dropout(0.2), visual.projection)
    return objective


def teacher(config: ModelConfig) -> Teacher:
    """Narrower than its student, on larger pictures."""
    generator = torch.get_rng_state()
    torch.manual_seed(1)
    config = ModelConfig(model="tiny-resnet", image_size=2 * SIDE)
    model = build_dual_encoder(config, tokenizer())
    model.text.projection = nn.Linear(512, 48, bias=False)
    model.visual.projection = nn.Linear(256, 48, bias=False)
    model.embed_dim = 48
    torch.set_rng_state(generator)
    return Teacher(model.eval(), tokenizer(), 20.0)


def micro_batches(count: int, seed: int = 0) -> list[dict]:
    """A global batch of :data:`ROWS` records in ``count`` micro-batches."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (ROWS, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    draws = torch.randint(0, len(WORDS), (ROWS, 4), generator=generator).tolist()
    captions = [" ".join(WORDS[i] for i in row[: 2 + row[0] % 3]) for row in draws]
    columns = {"image": image, "text": tokenizer()(captions), "said": captions}
    columns["captions_said"] = [(caption,) for caption in captions]
    columns["captions_text"] = pieces()(captions)
    columns["key"] = [str(row) for row in range(ROWS)]
    columns["mask_seed"] = torch.randint(0, 2**53, (ROWS,), generator=generator)
    columns["labels"] = [sorted({*row[: row[0] % 3]}) for row in draws]
    size = ROWS // count
    found = [{k: v[i : i + size] for k, v in columns.items()} for i in range(0, ROWS, size)]
    offsets = {"captions_offsets": torch.arange(size + 1)}
    return [{**micro, **offsets, **labels_of(micro["labels"])} for micro in found]


def labels_of(rows: list[list[int]]) -> dict[str, Tensor]:
    """The columns of each picture's labels."""
    labels = torch.tensor([number for row in rows for number in row], dtype=torch.int64)
    return {"labels": labels, "labels_offsets": row_offsets([len(row) for row in rows])}


def without_targets(batch: list[dict], which: range) -> list[dict]:
    """The batch with captions that say nothing in some of its micro-batches."""
    out = [dict(micro) for micro in batch]
    for index in which:
        text = torch.zeros_like(out[index]["text"])
        text[:, 0] = tokenizer().eot_id
        out[index]["text"], out[index]["said"] = text, [""] * len(text)
        out[index] |= labels_of([[]] * len(text))
    return out


class SmallLoader(StepLoader):
    """Batches of which a rank takes its run of micro-batches."""

    def __init__(self, count: int, ranks: Ranks):
        self.count, self.ranks = count, ranks

    def epoch(self, epoch: int, start_step: int = 0):
        for step in range(start_step, self.steps_per_epoch):
            yield own(micro_batches(self.count, seed=100 * epoch + step), self.ranks)


def set_in_memory(objective: Objective, size: int, micro: int, ranks: Ranks, seed: int = 0):
    """A loader of 64 records that lie in memory, their pictures changed every time."""
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randint(0, 256, (64, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    draws = torch.randint(0, len(WORDS), (64, 2, 4), generator=generator).tolist()
    records = []
    for row, (picture, drawn) in enumerate(zip(pictures, draws, strict=True)):
        captions = [" ".join(["left"[4 * (row % 2) :], *(WORDS[i] for i in of)]) for of in drawn]
        values = {"captions": captions, "label": row % 3 // 2, "labels": drawn[0][: row % 3]}
        records.append(Record(str(row), {"picture": png(picture), **values}))
    reading = Reading(
        objective.fields,
        (LABEL,),
        image_size=SIDE,
        tokenizer=getattr(objective, "tokenizer", tokenizer()),
        augment=AUGMENT,
    )
    return build_loader(
        ListedRecords("a list", [records]),
        DataSpec("a list"),
        reading,
        batch_size_per_rank=size // ranks.world_size,
        micro_batch_size=micro,
        sampler=objective.sampler,
        in_set_order=True,
        rank=ranks.rank,
        world_size=ranks.world_size,
        exchange=ranks.exchange,
        seed=seed,
        in_memory="always",
        progress=False,
    )


def png(picture: Tensor) -> bytes:
    """A picture, uint8 ``[3, H, W]``, as a PNG."""
    return torchvision.io.encode_png(picture).numpy().tobytes()


def own(batch: list[dict], ranks: Ranks) -> list[dict]:
    """A rank's run of the global batch's micro-batches."""
    share = len(batch) // ranks.world_size
    return [dict(micro) for micro in batch[ranks.rank * share :][:share]]


def small_trainer(
    name: str, ranks: Ranks, objective=None, *, loader=None, precision="fp32", **flags
):
    """A trainer of a small objective; ``flags`` by their flat names."""
    from fastclip.training import deepspeed_config
    from fastclip.training.trainer import Trainer

    flags = {"train_batch_size": ROWS, "warmup": 0, "report_to": "none", "epochs": 2, **flags}
    flags.setdefault("train_micro_batch_size_per_gpu", ROWS // 2 // ranks.world_size)
    cfg = train_config(**flags)
    micro = cfg.run.train_micro_batch_size_per_gpu
    objective = objective or build(name, ranks)
    if loader == "in memory" or name in ("labels", "sampled"):
        loader = set_in_memory(objective, ROWS, micro, ranks)
    return Trainer(
        cfg,
        ranks,
        objective=objective,
        loader=loader or SmallLoader(ROWS // micro, ranks),
        precision=precision,
        deepspeed=deepspeed_config.build(cfg, precision, ranks.world_size),
        fingerprint="tokens",
    )
