"""What a training picture goes through."""

from dataclasses import dataclass

from fastclip.errors import UserError


@dataclass(frozen=True)
class AugmentConfig:
    """What a training picture goes through; everything but the crop is off by default.

    Factors are drawn evenly in the logarithm, so that halving is as likely as doubling.
    """

    scale: tuple[float, float] | None = (0.9, 1.0)
    """Random resized crop: range of the area kept (open_clip's default); None leaves it out."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Random resized crop: range of width / height."""
    padding: int = 0
    """Shift by up to so many whole pixels each way."""
    hflip: float = 0.0
    """Probability of a mirror image."""
    degrees: float = 0.0
    """Turn by up to so many degrees each way."""
    zoom: float = 0.0
    """Enlarge or shrink by a factor of up to 1 + zoom."""
    stretch: float = 0.0
    """Change width / height by a factor of up to 1 + stretch."""
    shear: float = 0.0
    """Slant by up to so much of the height each way."""
    shift: float = 0.0
    """Shift by up to this part of the side each way."""
    fill: int | None = None
    """Grey level (0 to 255) of what comes in from outside; the edge repeated where left out."""
    brightness: float = 0.0
    """Multiply by a factor of up to 1 + brightness."""
    contrast: float = 0.0
    """Change the distance to the pivot by a factor of up to 1 + contrast."""
    pivot: int | None = None
    """Grey level that contrast leaves as it is; the picture's mean where left out."""
    saturation: float = 0.0
    """Change the distance to grey by a factor of up to 1 + saturation."""
    hue: float = 0.0
    """Turn the hue by up to this part of the color circle each way (0.5 is everything)."""
    gamma: float = 0.0
    """Raise to a power of up to 1 + gamma."""
    color_jitter_prob: float = 1.0
    """Probability that brightness, contrast, saturation, hue and gamma change."""
    gray: float = 0.0
    """Probability that the colors are taken away."""
    erase: float = 0.0
    """Probability that a square of a sixth to a half of the side gets one random color."""

    def __post_init__(self) -> None:
        for name in _AT_LEAST_0:
            if not getattr(self, name) >= 0:
                raise UserError(f"augment.{name} is {getattr(self, name)}, expected >= 0")
        for name, most in _AT_MOST.items():
            if not 0 <= getattr(self, name) <= most:
                value = getattr(self, name)
                raise UserError(f"augment.{name} is {value}, expected 0 to {most}")
        for name in ("fill", "pivot"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 255:
                raise UserError(f"augment.{name} is {value}, expected 0 to 255")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"augment.scale is {self.scale}, expected 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"augment.ratio is {self.ratio}, expected 0 < low <= high")

    @property
    def moves(self) -> bool:
        """Whether pixels change their places after the crop."""
        return any((self.padding, self.degrees, self.zoom, self.stretch, self.shear, self.shift))

    @property
    def recolors(self) -> bool:
        """Whether colors change."""
        jitter = (self.brightness, self.contrast, self.saturation, self.hue, self.gamma)
        return bool(self.gray or (self.color_jitter_prob and any(jitter)))


_AT_LEAST_0 = (
    *("padding", "degrees", "zoom", "stretch", "shear", "shift"),
    *("brightness", "contrast", "saturation", "gamma"),
)
_AT_MOST = {"hflip": 1, "color_jitter_prob": 1, "gray": 1, "erase": 1, "hue": 0.5}
