"""A whole run from its configuration: build, resume, train, evaluate, report."""

import dataclasses
from pathlib import Path

import torch
import torch.distributed as dist

from fastclip.data.generated import ensure_generated
from fastclip.data.loader import Loader, build_loader
from fastclip.data.sources import DataSpec, open_source
from fastclip.data.splits import class_texts
from fastclip.data.text.interface import Tokeniser
from fastclip.errors import UserError
from fastclip.models import DualEncoder, create_model
from fastclip.objectives.contrastive import Contrastive
from fastclip.ops import dispatch
from fastclip.training import deepspeed_config, evaluation, plots, run_folder, weights
from fastclip.training.config import TrainConfig
from fastclip.training.distributed import Ranks
from fastclip.training.reporting import read_metrics
from fastclip.training.tokens import build_tokeniser
from fastclip.training.trainer import Trainer


def run(cfg: TrainConfig, ranks: Ranks) -> None:
    """Train and evaluate as ``cfg`` says. Raises :class:`fastclip.errors.UserError`."""
    check_backend(cfg, ranks.device)
    precision = deepspeed_config.resolve_precision(cfg)
    deepspeed = deepspeed_config.build(cfg, precision, ranks.world_size)
    folder, checkpoint = _agree(run_folder.choose(cfg), ranks)
    torch.manual_seed(cfg.seed)
    spec, splits = data(cfg, ranks)
    tokenizer = build_tokeniser(cfg, spec)
    model = build_model(cfg, tokenizer)
    # The weights are the same on every rank, dropout's masks must not be.
    torch.manual_seed(cfg.seed + ranks.rank)
    loader = build_training_loader(cfg, spec, tokenizer, model, ranks)
    objective = Contrastive(
        siglip=cfg.siglip,
        init_logit_scale=cfg.init_logit_scale,
        rank=ranks.rank,
        world_size=ranks.world_size,
        workspace_bytes=cfg.workspace_mib << 20,
    )
    trainer = Trainer(
        cfg,
        ranks,
        model=model,
        objective=objective,
        loader=loader,
        precision=precision,
        deepspeed=deepspeed,
        fingerprint=tokenizer.fingerprint,
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
    if ranks.is_first:
        resolved = dataclasses.replace(cfg, precision=precision, name=folder.name)
        if checkpoint and (changed := run_folder.changes(folder, resolved)):
            print(f"changed since the last start: {', '.join(changed)}", flush=True)
        run_folder.write(folder, resolved, deepspeed)
        tokenizer.save(folder / "tokenizer.json")
        start = f"resuming at step {trainer.step}" if checkpoint else "training"
        steps = f"{trainer.total_steps} steps of {cfg.train_batch_size} pairs"
        print(f"{start}: {cfg.model}, {steps}, {precision}, in {folder}", flush=True)
    trainer.train(folder)
    weights.save(trainer.engine, trainer.objective, folder / "model.safetensors", ranks)
    if ranks.is_first:
        plots.loss_curve(read_metrics(folder), folder / "loss.png")
    results = evaluation.evaluate(trainer, model, tokenizer, splits, folder)
    if ranks.is_first:
        print(f"run folder: {folder}")
        print(evaluation.headline(results, generated=not cfg.val_data), flush=True)


def check_backend(cfg: TrainConfig, device: torch.device) -> None:
    """Raise UserError for a backend in the environment that the loss cannot take here."""
    try:
        dispatch.resolved("sigmoid" if cfg.siglip else "infonce", "auto", device)
    except ValueError as error:
        raise UserError(str(error)) from error


def data(cfg: TrainConfig, ranks: Ranks) -> tuple[DataSpec, dict[str, DataSpec]]:
    """The training data and the named evaluation splits."""

    def spec(path: str, num_samples: int | None = None) -> DataSpec:
        return DataSpec(
            path=path,
            dataset_type="auto" if cfg.dataset_type == "synthetic" else cfg.dataset_type,
            num_samples=num_samples,
            csv_img_key=cfg.csv_img_key,
            csv_caption_key=cfg.csv_caption_key,
            csv_separator=cfg.csv_separator,
            max_bad_share=cfg.max_bad_share,
        )

    train, splits = cfg.train_data, {}
    if cfg.dataset_type == "synthetic" or not cfg.train_data:
        generated = ensure_generated(cfg.data_root, progress=ranks.is_first)
        train = generated.train
        splits = {"held-out": generated.val_held_out, "seen": generated.val_seen}
    if cfg.val_data:
        splits = evaluation.parse_splits(cfg.val_data)
    named = {name: spec(path) for name, path in splits.items()}
    for split in named.values():
        # A wrong path, or class names of no use, are told before the training, not after.
        open_source(split, need_text=False)
        class_texts(split)
    return spec(train, cfg.train_num_samples), named


def build_model(cfg: TrainConfig, tokenizer: Tokeniser) -> DualEncoder:
    overrides = {} if cfg.image_size is None else {"image_size": cfg.image_size}
    model = create_model(
        cfg.model,
        vocab_size=tokenizer.vocab_size,
        context_length=tokenizer.context_length,
        pad_id=tokenizer.pad_id,
        eot_id=tokenizer.eot_id,
        **overrides,
    )
    model.set_grad_checkpointing(cfg.grad_checkpointing)
    return model


def build_training_loader(
    cfg: TrainConfig, spec: DataSpec, tokenizer: Tokeniser, model: DualEncoder, ranks: Ranks
) -> Loader:
    return build_loader(
        spec,
        image_size=model.image_size,
        tokenizer=tokenizer,
        batch_size_per_rank=cfg.train_batch_size // ranks.world_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        seed=cfg.seed,
        workers=cfg.workers,
        augment=cfg.augment,
        captions=cfg.captions,
        in_memory=cfg.in_memory,
        progress=ranks.is_first,
    )


def _agree(choice: tuple[Path, Path | None], ranks: Ranks) -> tuple[Path, Path | None]:
    """Rank 0's choice of folders, on every rank."""
    if ranks.world_size == 1:
        return choice
    box = [choice]
    dist.broadcast_object_list(box, src=0)
    return box[0]
