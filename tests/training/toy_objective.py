"""An objective of no use but its flags."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ToyOptions:
    """Flags of the toy."""

    decoder_layers: int = 2
    """Layers of its decoder."""
    reverse: bool = False
    """Read backwards, too."""


class Toy:
    Options = ToyOptions
    summary = "a toy for this test"
    paper = "Nobody 2026"
