"""From a number in [0, 1) to the draw that is wanted, in fp64."""


def either_way(number: float, most: float) -> float:
    """Evenly from -``most`` to ``most``."""
    return most * (2 * number - 1)


def factor(number: float, most: float) -> float:
    """From 1 / (1 + most) to 1 + most, evenly in the logarithm."""
    return (1 + most) ** (2 * number - 1)
