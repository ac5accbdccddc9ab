"""fastclip: exact, memory-bounded contrastive losses and the engine that trains on them.

Importing the package imports nothing else; start from ``fastclip.loss`` or ``fastclip/train.py``.
"""

__version__ = "0.1.0"
