"""Options of the data: where records come from, what is read of them, how they vary."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastclip.data.augment import AugmentConfig
from fastclip.data.cache.settings import CacheSettings
from fastclip.data.captions import CaptionConfig
from fastclip.data.fields.reading import Decode
from fastclip.data.sources.spec import DatasetType, DataSpec
from fastclip.errors import UserError, check_flags


@dataclass(kw_only=True)
class DataConfig:
    """What is trained on and evaluated on."""

    train_data: str = ""
    """Shards (braces, ``*``), an annotation, csv or parquet file, or a folder; several with ``::``;
    empty for the generated set."""
    val_data: str = ""
    """The same for evaluation; several splits as name=path,name=path."""
    imagenet_val: str = ""
    """Any labelled split, ImageNet's or another, to be classified zero-shot by its class names."""
    dataset_type: DatasetType = "auto"
    """Layout of the data, by default told from path and content; ``synthetic`` is the generated
    set."""
    train_num_samples: int | None = None
    """Samples an epoch; read from the data where it is left out."""
    dataset_resampled: bool = False
    """Draw training shards with replacement instead of once an epoch."""
    train_data_upsampling_factors: str = ""
    """How often each of the sources of ``--train-data`` comes an epoch, such as 2::0.5."""
    train_split: str = ""
    """Split to train on, where a layout has several, or ``all``; by default ``train``."""
    val_split: str = ""
    """Split to evaluate on, where a layout has several, or ``all``; by default ``val``."""
    image_root: str = ""
    """Folder of the pictures that an annotation file names, where they are not beside it."""
    val_image_root: str = ""
    """The same for ``--val-data``; by default ``--image-root``."""
    regions: Literal["crop", "whole"] = "crop"
    """Visual Genome: each region cropped, or whole pictures with all their phrases."""
    csv_img_key: str = "filepath"
    """csv column of the picture's path."""
    csv_caption_key: str = "title"
    """csv column of the caption."""
    csv_separator: str = "\t"
    """csv separator."""
    data_root: Path = Path("~/.cache/fastclip")
    """Folder where the generated set is kept."""
    in_memory: Literal["auto", "always", "never"] = "auto"
    """Keep decoded pictures in memory; ``auto`` does up to 2 GiB."""
    cache: str = ""
    """Folder on a fast disk where decoded pictures are kept from the first epoch on, for this run
    and later ones, where the set does not fit in memory."""
    cache_limit: float | None = None
    """GiB that ``--cache`` may take: what it holds of other data or settings and no run uses is
    removed to keep it, the oldest first. 80% of what is free where left out."""
    workers: int = 0
    """Loader processes a rank when streaming, decoding threads when kept in memory."""
    decode: Decode = "auto"
    """JPEGs: ``whole`` (Pillow's pictures, faster), ``auto`` (in training at a half, a quarter or
    an eighth, where that is enough for the crop), ``scaled`` (in evaluations too) or ``pillow``."""
    read_timeout: float = 60.0
    """Seconds for which a file, pipe or worker may give nothing before it is given up."""
    max_bad_share: float = 0.01
    """Share of unreadable records above which the run fails."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What training pictures go through (``--augment.hflip 0.5``; a mapping in a recipe)."""
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    """How training captions vary (``--captions.tags 0.8``; a mapping in a recipe)."""
    tokenizer: str = "auto"
    """``bpe`` (trained on the captions), ``words`` (words and trigrams), a merges file, or auto."""
    vocab_size: int = 4096
    """Vocabulary of a tokenizer trained on the captions."""
    ngrams: tuple[int, ...] = (3,)
    """Lengths of the character n-grams of ``--tokenizer words``."""
    ngram_buckets: int = 4096
    """Ids that these n-grams are hashed into."""

    @property
    def cache_settings(self) -> CacheSettings | None:
        """Where decoded pictures are kept; None for nowhere."""
        if not self.cache:
            return None
        return CacheSettings(Path(self.cache).expanduser(), self.cache_limit)

    @property
    def is_generated(self) -> bool:
        """Whether the training data are the generated set, which brings splits of its own."""
        return self.dataset_type == "synthetic" or not self.train_data

    @property
    def has_val_data(self) -> bool:
        """Whether there is a split to evaluate on, --imagenet-val's apart."""
        return bool(self.val_data) or self.is_generated

    def check(self) -> None:
        """Raise :class:`UserError` for a value that no data can have or that would be ignored."""
        check_flags(self, ("vocab_size", "ngram_buckets"), "more than 0", lambda n: n > 0)
        check_flags(self, ("ngrams",), "lengths of 1 or more", lambda found: min(found) > 0)
        check_flags(self, ("workers",), "0 or more", lambda n: n >= 0)
        check_flags(self, ("read_timeout",), "more than 0", lambda seconds: seconds > 0)
        check_flags(self, ("train_num_samples",), "1 or more", lambda n: n >= 1)
        check_flags(self, ("max_bad_share",), "0 <= value < 1", lambda share: 0 <= share < 1)
        check_flags(self, ("cache_limit",), "more than 0", lambda gib: 0 < gib < math.inf)
        if self.cache_limit is not None and not self.cache:
            raise UserError("--cache-limit needs --cache")
        if self.cache and self.in_memory == "always":
            raise UserError("--cache and --in-memory always cannot go together: leave out one")
        if self.train_data and self.dataset_type == "synthetic":
            raise UserError(
                f"--train-data is {self.train_data!r} with --dataset-type synthetic, which reads "
                "none"
            )
        if not self.train_data:
            if self.dataset_type not in ("auto", "synthetic"):
                raise UserError(f"--dataset-type {self.dataset_type} needs --train-data")
            for name in ("train_data_upsampling_factors", "train_split"):
                if getattr(self, name):
                    raise UserError(f"--{name.replace('_', '-')} needs --train-data")
            if self.cache and self.in_memory == "auto":
                raise UserError(
                    "--cache needs --train-data: the generated set is kept in memory, save with "
                    "--in-memory never"
                )
        elif self.data_root != DataConfig.data_root:
            raise UserError(
                f"--data-root is {self.data_root}, the folder of the generated set, which "
                f"--train-data {self.train_data} takes the place of: leave out one of them"
            )
        for name in ("val_split", "val_image_root"):
            if getattr(self, name) and not (self.val_data or self.imagenet_val):
                raise UserError(f"--{name.replace('_', '-')} needs --val-data or --imagenet-val")

    def train_spec(self, path: str) -> DataSpec:
        """How the training data at ``path`` are read."""
        return DataSpec(
            image_root=self.image_root,
            split=self.train_split,
            num_samples=self.train_num_samples,
            upsampling=self.train_data_upsampling_factors,
            **self._shared(path),
        )

    def val_spec(self, path: str) -> DataSpec:
        """How evaluation data at ``path`` are read."""
        root = self.val_image_root or self.image_root
        return DataSpec(image_root=root, split=self.val_split, **self._shared(path))

    def _shared(self, path: str) -> dict[str, Any]:
        return {
            "path": path,
            "dataset_type": "auto" if self.dataset_type == "synthetic" else self.dataset_type,
            "regions": self.regions,
            "csv_img_key": self.csv_img_key,
            "csv_caption_key": self.csv_caption_key,
            "csv_separator": self.csv_separator,
            "max_bad_share": self.max_bad_share,
            "read_timeout": self.read_timeout,
            "decode": self.decode,
        }
