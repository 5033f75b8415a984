"""What a stage does that could not reach what it was asked for."""


class ShortfallError(ValueError):
    """The model is written, but it is only the closest to what was asked for."""
