"""In which order records come: which of them, at which place of an epoch."""

from fastclip.data.order.base import MOST_ATTEMPTS, EpochOrder, Window
from fastclip.data.order.distinct import separate_groups
from fastclip.data.order.epochs import Order
from fastclip.data.order.sampling import Sampler

__all__ = ["EpochOrder", "MOST_ATTEMPTS", "Order", "Sampler", "Window", "separate_groups"]
