"""How a picture becomes a network's input: resized, cropped, normalised. Stdlib only.

Shapes: C channels, H height, W width.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kondense.errors import InputError, meant

BILINEAR = "bilinear"
INTERPOLATIONS = (BILINEAR, "bicubic", "box", "hamming", "lanczos", "nearest")  # Pillow's and torchvision's names
DATASET, MEASURED = "dataset", ()
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # -> mean and std, per channel or for all
    DATASET: (MEASURED, MEASURED),
    "imagenet": IMAGENET,
    "half": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
}
LARGEST_IMAGE = 2**24  # values of one input
LARGEST_SIDE = 2**14  # pixels
TOLERANCE = 0.05  # differences of mean and std, in standard deviations, that networks do not notice


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The steps from a picture to a network's input, as torchvision's and timm's evaluation transforms have them.

    Attributes:
        mean: per channel, of pixels scaled to [0, 1].
        std: likewise, above 0.
        crop: height and width of the input; () if it is not known.
        resize: what comes before the central crop. (side,): the shorter side is resized to it, as
            ``torchvision.transforms.Resize(side)``. (height, width): both are, as ``Resize((height, width))``. (): the
            centre is cropped to the aspect ratio of ``crop`` and resized to it.
        interpolation: of the resizing, antialiased.

    Raises:
        InputError: a value breaks one of these rules.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: tuple[int, ...] = ()
    resize: tuple[int, ...] = ()
    interpolation: str = BILINEAR

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise InputError(f"mean and std must have one number per channel, std above 0, but got {self.std}.")
        check_geometry(self.crop, self.resize, self.interpolation)


def check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise InputError unless there are as many deviations above 0 as means, for pixels scaled to [0, 1]."""
    if len(mean) != len(std) or not mean:
        raise InputError(f"mean and std must have one number per channel each, but got {len(mean)} and {len(std)}.")
    for name, values, rule in (("mean", mean, "in [0, 1]"), ("std", std, "in (0, 1]")):
        for value in values:
            if not 0.0 <= value <= 1.0 or (name == "std" and not value):
                hint = "; divide numbers for pixels up to 255 by 255" if value > 1 else ""
                raise InputError(f"{name} must be {rule}, for pixels scaled to [0, 1], but got {value:g}{hint}.")


def check_geometry(crop: Sequence[int], resize: Sequence[int], interpolation: str) -> None:
    """Raise InputError unless sizes are positive, the crop lies in the resized picture and the filter is known."""
    if (
        len(crop) not in (0, 2)
        or len(resize) not in (0, 1, 2)
        or any(not 1 <= side <= LARGEST_SIDE for side in (*crop, *resize))
    ):
        raise InputError(
            "crop must be (height, width), and resize (shorter side,) or (height, width), of at least 1 pixel and at"
            f" most {LARGEST_SIDE}, but got {tuple(crop)} and {tuple(resize)}."
        )
    bounds = resize if len(resize) != 1 else (*resize, *resize)
    if crop and resize and all(side > bound for side, bound in zip(crop, bounds, strict=True)):
        raise InputError(f"resize must be at least the crop's size {in_words(crop)}, but got {in_words(resize)}.")
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, but got {interpolation!r}"
            f"{meant(interpolation, INTERPOLATIONS)}."
        )


def normalization_of(name: str, mean: str, std: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of a preset or of texts such as ``0.485,0.456,0.406``; () and () are to be measured.

    Raises:
        InputError: an unknown preset, a preset beside numbers, one of ``mean`` and ``std`` alone, or no such numbers.
    """
    if name not in NORMALIZATIONS:
        known = ", ".join(NORMALIZATIONS)
        raise InputError(f"normalization must be one of {known}, but got {name!r}{meant(name, NORMALIZATIONS)}.")
    if not mean.strip() and not std.strip():
        return NORMALIZATIONS[name]
    if name != DATASET:
        raise InputError(f"mean and std must be empty beside normalization={name}, but got {mean!r} and {std!r}.")
    values = _numbers("mean", mean), _numbers("std", std)
    check_normalization(*values)
    return values


def per_channel(
    normalization: tuple[tuple[float, ...], tuple[float, ...]], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std with one number per channel.

    Raises:
        InputError: they are for another number of channels.
    """
    mean, std = (values * channels if len(values) == 1 else values for values in normalization)
    if len(mean) != channels:
        raise InputError(
            f"mean and std must have one number, or one for each of {channels} channels, but have {len(mean)}; set"
            f" channels={len(mean)}, or other numbers."
        )
    return mean, std


def difference(network: Preprocessing, data: Preprocessing) -> str:
    """Return in one line how the images of a data set differ from what a network was trained with; "" if not.

    The line ends with the parameters of data_prep that make them equal.
    """
    differing = [
        name for name in ("mean", "std") if not _near(getattr(network, name), getattr(data, name), network.std)
    ]
    known = [name for name in ("crop", "resize", "interpolation") if name != "crop" or network.crop]
    scaled = network.resize or network.crop
    differing += [name for name in known if scaled and getattr(network, name) != getattr(data, name)]
    if not differing:
        return ""
    facts = [f"{name} {in_words(getattr(network, name))}, not {in_words(getattr(data, name))}" for name in differing]
    flags = " ".join(f"--set data_prep.{name}={value}" for name, value in settings(network).items())
    return f"the network was trained on images with {'; '.join(facts)}; to prepare them so: {flags}"


def settings(preprocessing: Preprocessing) -> dict[str, str]:
    """Return the parameters of data_prep that prepare images so, as texts."""
    mean, std = preprocessing.mean, preprocessing.std
    given = {name: (means * len(mean), stds * len(std)) for name, (means, stds) in NORMALIZATIONS.items()}
    given["imagenet"] = IMAGENET
    preset = next((name for name, values in given.items() if values == (mean, std)), "")
    texts = {"normalization": preset} if preset else {"mean": _listed(mean), "std": _listed(std)}
    if preprocessing.crop:
        height, width = preprocessing.crop
        texts["image_size"] = str(height)
        texts |= {"image_width": str(width)} if width != height else {}
    if len(preprocessing.resize) == 1:
        texts["resize"] = str(preprocessing.resize[0])
    elif preprocessing.resize:
        texts["crop_mode"] = "squash"
    if preprocessing.interpolation != BILINEAR:
        texts["interpolation"] = preprocessing.interpolation
    return texts


def in_words(value: Any) -> str:
    """Return sizes as ``224x160`` and numbers as ``0.485, 0.456``."""
    if isinstance(value, str):
        return value
    if not value:
        return "none"
    if all(isinstance(item, int) for item in value):
        return "x".join(map(str, value))
    return ", ".join(f"{item:.4g}" for item in value)


def _near(one: Sequence[float], other: Sequence[float], scales: Sequence[float]) -> bool:
    if len(one) != len(other):
        return False
    return all(abs(a - b) <= TOLERANCE * scale for a, b, scale in zip(one, other, scales, strict=True))


def _listed(values: Sequence[float]) -> str:
    return ",".join(map(repr, values))


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(item) for item in text.strip().strip("()[]").split(","))
    except ValueError:
        raise InputError(f"{name} must be numbers such as 0.5 or 0.485,0.456,0.406, but got {text!r}.") from None
