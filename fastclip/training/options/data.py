"""Options of the data: where records come from, what is read of them, how they vary."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastclip.data.augment import AugmentConfig
from fastclip.data.captions import CaptionConfig
from fastclip.errors import UserError, check_flags


@dataclass(kw_only=True)
class DataConfig:
    """What is trained on and evaluated on."""

    train_data: str = ""
    """Training shards (braces and ``::`` allowed), a csv file, or empty for the generated set."""
    val_data: str = ""
    """Shards or csv for evaluation; several splits as name=path,name=path."""
    imagenet_val: str = ""
    """Any labelled split, ImageNet's or another, to be classified zero-shot by its class names."""
    dataset_type: Literal["auto", "webdataset", "csv", "synthetic"] = "auto"
    """How to read the training data; ``synthetic`` is the generated set."""
    train_num_samples: int | None = None
    """Samples an epoch; read from the data where it is left out."""
    dataset_resampled: bool = False
    """Draw training shards with replacement instead of once an epoch."""
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
    workers: int = 0
    """Loader processes a rank when streaming, decoding threads when kept in memory."""
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
    def is_generated(self) -> bool:
        """Whether the training data are the generated set, which brings splits of its own."""
        return self.dataset_type == "synthetic" or not self.train_data

    @property
    def has_val_data(self) -> bool:
        """Whether there is a split to evaluate on, --imagenet-val's apart."""
        return bool(self.val_data) or self.is_generated

    def check(self) -> None:
        """Raise :class:`UserError` for a value that no data can have or that would be ignored."""
        check_flags(self, ("vocab_size",), "more than 0", lambda n: n > 0)
        check_flags(self, ("workers",), "0 or more", lambda n: n >= 0)
        check_flags(self, ("train_num_samples",), "1 or more", lambda n: n >= 1)
        check_flags(self, ("max_bad_share",), "0 <= value < 1", lambda share: 0 <= share < 1)
        if self.train_data and self.dataset_type == "synthetic":
            raise UserError(
                f"--train-data is {self.train_data!r} with --dataset-type synthetic, which reads "
                "none"
            )
        if not self.train_data and self.dataset_type in ("webdataset", "csv"):
            raise UserError(f"--dataset-type {self.dataset_type} needs --train-data")
