"""A whole run from its configuration: build, resume, train, evaluate, report."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTIONS, LABEL
from fastclip.data.fields.held import check_found, check_tags
from fastclip.data.fields.reading import Reading
from fastclip.data.generated.shards import ensure_generated
from fastclip.data.loaders.base import Loader
from fastclip.data.loaders.build import build_loader
from fastclip.data.sources.each_caption import each_caption
from fastclip.data.sources.ignored_settings import settings_of_each
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.text.interface import Tokenizer
from fastclip.data.text.remembered import RememberedTokenizer
from fastclip.errors import UserError
from fastclip.objectives import find_objective
from fastclip.objectives.base import Learned, Objective, Parts
from fastclip.runs.learned import save_learned
from fastclip.runs.teacher import open_teacher
from fastclip.training import checkpoint as checkpoints
from fastclip.training import deepspeed_config, notes, plots, run_folder, weights
from fastclip.training.config import TrainConfig
from fastclip.training.epochs import works_before_epochs
from fastclip.training.learning import learn
from fastclip.training.reporting import read_metrics, read_validation
from fastclip.training.tokenizer import build_tokenizer
from fastclip.training.trainer import Trainer
from fastclip.training.validation import Validation, parse_splits


def run(cfg: TrainConfig, ranks: Ranks) -> None:
    """Train and evaluate as ``cfg`` says. Raises :class:`fastclip.errors.UserError`."""
    check_backend(cfg, ranks.device)
    precision = deepspeed_config.resolve_precision(cfg)
    deepspeed = deepspeed_config.build(cfg, precision, ranks.world_size)
    folder, checkpoint = _agree(run_folder.choose(cfg), ranks)
    torch.manual_seed(cfg.run.seed)
    spec, splits = open_data(cfg, ranks)
    tokenizer = build_tokenizer(cfg, spec, find_objective(cfg.run.objective))
    learned = learn(cfg, spec, tokenizer, checkpoint, ranks)
    objective = build_objective(cfg, tokenizer, ranks, learned)
    validation = Validation(cfg, ranks, objective.model, tokenizer, splits)
    loader = build_training_loader(cfg, spec, tokenizer, objective, ranks)
    trainer = Trainer(
        cfg,
        ranks,
        objective=objective,
        loader=loader,
        precision=precision,
        deepspeed=deepspeed,
        fingerprint=tokenizer.fingerprint,
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        if ranks.is_first and folder in checkpoint.parents:
            checkpoints.set_aside_later(checkpoint)
    if ranks.is_first:
        run = dataclasses.replace(cfg.run, precision=precision, name=folder.name)
        resolved = dataclasses.replace(cfg, run=run)
        if checkpoint and (changed := run_folder.changes(folder, resolved)):
            print(f"changed since the last start: {', '.join(changed)}", flush=True)
        run_folder.write(folder, resolved, deepspeed)
        tokenizer.save(folder / "tokenizer.json")
        save_learned(learned, folder)
        start = f"resuming at step {trainer.step}" if checkpoint else "training"
        steps = f"{trainer.total_steps} steps of {cfg.run.train_batch_size} records"
        what = f"{cfg.run.objective} with {cfg.model.model}"
        print(f"{start}: {what}, {steps}, {precision}, in {folder}", flush=True)
        remarks = notes.of_run(
            cfg, trainer.total_steps, loader.steps_per_epoch, precision, ranks.world_size
        )
        for note in [*remarks, *loader.notes, *validation.notes]:
            print(f"note: {note}", flush=True)
    told: list[str] = []

    def at_the_end() -> dict[str, float]:
        # Before the evaluation, which may fail.
        weights.save(objective, folder / "model.safetensors", ranks)
        if ranks.is_first:
            plots.curves(read_metrics(folder), read_validation(folder), folder / "loss.png")
        figures, lines = validation.at_the_end(trainer, folder)
        told.extend(lines)
        return figures

    try:
        with contextlib.closing(loader):
            trainer.train(folder, validation.during(trainer), at_the_end)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (_where(trainer.step, folder),)
        raise
    if ranks.is_first:
        plots.curves(read_metrics(folder), read_validation(folder), folder / "loss.png")
        print("\n".join([f"run folder: {folder}", *told]), flush=True)


def check_backend(cfg: TrainConfig, device: torch.device) -> None:
    """Raise UserError for a backend in the environment that the loss cannot take here."""
    try:
        find_objective(cfg.run.objective).check_backend(device)
    except ValueError as error:
        raise UserError(str(error)) from error


def open_data(cfg: TrainConfig, ranks: Ranks) -> tuple[DataSpec, dict[str, DataSpec]]:
    """The training data, and the evaluation splits by their roles, such as ``--val-data NAME``."""
    data = cfg.data
    train, splits = data.train_data, {}
    if data.is_generated:
        generated = ensure_generated(data.data_root, progress=ranks.is_first)
        train = generated.train
        splits = {"held-out": generated.val_held_out, "seen": generated.val_seen}
    if data.val_data:
        splits = parse_splits(data.val_data)
    roles = {f"--val-data {name}": data.val_spec(path) for name, path in splits.items()}
    if data.imagenet_val:
        roles["--imagenet-val"] = data.val_spec(data.imagenet_val)
    specs = settings_of_each({"--train-data": data.train_spec(train), **roles})
    return specs.pop("--train-data"), specs


def build_objective(
    cfg: TrainConfig, tokenizer: Tokenizer, ranks: Ranks, learned: Learned
) -> Objective:
    """The objective that the run trains, with weights from its seed."""
    parts = Parts(cfg.model, tokenizer, ranks, cfg.run.workspace_mib << 20, open_teacher, learned)
    return find_objective(cfg.run.objective)(cfg.objective, parts)


def build_training_loader(
    cfg: TrainConfig, spec: DataSpec, tokenizer: Tokenizer, objective: Objective, ranks: Ranks
) -> Loader:
    """The loader of what the objective needs of every record."""
    model: Any = objective.model
    wanted_by = f"--objective {cfg.run.objective}"
    captions = cfg.data.captions
    reading = Reading(
        objective.fields,
        optional=tuple(f for f in (LABEL,) if f not in objective.fields),
        image_size=model.image_size,
        tokenizer=RememberedTokenizer(tokenizer) if captions.fixed else tokenizer,
        captions=captions,
        augment=cfg.data.augment,
        decode=cfg.data.decode,
        max_pixels=spec.max_pixels,
    )
    source = open_source(spec, reading.fields, also=reading.optional, wanted_by=wanted_by)
    check_found(source, reading, spec.max_bad_share, wanted_by)
    if ranks.is_first or not source.forward_only:  # a stream is started for it
        check_tags(source, captions)
    if captions.rows == "each":
        source = each_caption(source, open_source(spec, (), also=(CAPTIONS,)))
    loader = build_loader(
        source,
        spec,
        reading,
        batch_size_per_rank=cfg.run.train_batch_size // ranks.world_size,
        micro_batch_size=deepspeed_config.micro_batch_size(cfg, ranks.world_size),
        wanted_by=wanted_by,
        sampler=objective.sampler,
        in_set_order=works_before_epochs(objective),
        rank=ranks.rank,
        world_size=ranks.world_size,
        exchange=ranks.exchange,
        seed=cfg.run.seed,
        workers=cfg.data.workers,
        resampled=cfg.data.dataset_resampled,
        in_memory=cfg.data.in_memory,
        cache=cfg.data.cache_settings,
        progress=ranks.is_first,
    )
    loader.notes = [*notes.of_data(spec, source), *loader.notes]
    return loader


def _where(step: int, folder: Path) -> str:
    """At which step a run was interrupted and how to go on, as the end of a sentence."""
    saved = checkpoints.complete(folder / "checkpoints")
    if not saved:
        return f" at step {step}, before the first checkpoint"
    return f" at step {step}; the last checkpoint is {saved[-1]}: go on with --resume {folder}"


def _agree(choice: tuple[Path, Path | None], ranks: Ranks) -> tuple[Path, Path | None]:
    """Rank 0's choice of folders, on every rank."""
    if ranks.world_size == 1:
        return choice
    box = [choice]
    dist.broadcast_object_list(box, src=0)
    return box[0]
