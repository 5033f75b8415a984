"""Normalisation and geometry as people give them, and how two of them differ."""

import pytest
from kondense.preprocessing import IMAGENET, Preprocessing, difference, normalization_of, per_channel, settings

NETWORK = Preprocessing(*IMAGENET, crop=(224, 224), resize=(256,))
OWN = Preprocessing((0.3, 0.3, 0.3), (0.2, 0.2, 0.2), crop=(64, 64))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("dataset", "", ""), ((), ())),
        (("imagenet", "", ""), IMAGENET),
        (("half", "", ""), ((0.5,), (0.5,))),
        (("none", "", ""), ((0.0,), (1.0,))),
        (("dataset", "0.5", "0.25"), ((0.5,), (0.25,))),
        (("dataset", "0.485, 0.456, 0.406", "(0.229,0.224,0.225)"), IMAGENET),
    ],
)
def test_normalisation_is_a_preset_or_numbers(arguments, expected):
    assert normalization_of(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("Imagenet", "", ""), "normalization must be one of dataset, imagenet, half, none, but got 'Imagenet'"),
        (("imagenet", "0.5", "0.5"), "mean and std must be empty beside normalization=imagenet"),
        (("dataset", "0.5", ""), "std must be numbers such as"),
        (("dataset", "red", "0.5"), "mean must be numbers such as .*, but got 'red'"),
        (("dataset", "0.1,0.2", "0.5"), "one number per channel each, but got 2 and 1"),
        (
            ("dataset", "123.675,116.28,103.53", "58.4,57.1,57.4"),
            "but got 123.675; divide numbers for pixels up to 255",
        ),
        (("dataset", "0.5", "0"), r"std must be in \(0, 1\]"),
        (("dataset", "nan", "0.5"), r"mean must be in \[0, 1\]"),
    ],
)
def test_other_normalisation_is_an_error(arguments, text):
    with pytest.raises(ValueError, match=text):
        normalization_of(*arguments)


def test_one_number_stands_for_every_channel():
    assert per_channel(((0.5,), (0.25,)), 3) == ((0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ValueError, match="for each of 1 channels, but have 3; set channels=3"):
        per_channel(IMAGENET, 1)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"crop": (224,)}, r"crop must be \(height, width\)"),
        ({"crop": (0, 5)}, "at least 1 pixel"),
        ({"resize": (10**9,)}, "at least 1 pixel and at most 16384"),
        ({"crop": (64, 64), "resize": (32,)}, "resize must be at least the crop's size 64x64, but got 32"),
        ({"interpolation": "cubic"}, "interpolation must be one of bilinear, bicubic"),
        ({"std": (0.0,)}, "std above 0"),
        ({"std": (0.5, 0.5)}, "one number per channel"),
    ],
)
def test_other_geometry_is_an_error(fields, text):
    with pytest.raises(ValueError, match=text):
        Preprocessing(**({"mean": (0.5,), "std": (0.5,)} | fields))


def test_small_differences_of_the_statistics_do_not_count():
    seed = Preprocessing((0.303, 0.297, 0.301), (0.203, 0.199, 0.2), crop=(64, 64))
    assert difference(OWN, seed) == ""
    half = Preprocessing((0.5,) * 3, (0.229, 0.224, 0.225))
    assert "mean 0.485, 0.456, 0.406, not 0.5, 0.5, 0.5; to prepare them so" in difference(
        Preprocessing(*IMAGENET), half
    )


def test_a_difference_is_told_with_the_parameters_that_end_it():
    text = difference(NETWORK, OWN)
    assert "\n" not in text
    assert "mean 0.485, 0.456, 0.406, not 0.3, 0.3, 0.3" in text and "resize 256, not none" in text
    assert text.endswith(
        "--set data_prep.normalization=imagenet --set data_prep.image_size=224 --set data_prep.resize=256"
    )
    assert difference(NETWORK, NETWORK) == ""
    assert difference(Preprocessing(OWN.mean, OWN.std), OWN) == ""  # the sizes are not known


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (Preprocessing((0.5,) * 3, (0.5,) * 3), {"normalization": "half"}),
        (Preprocessing((0.1, 0.2, 0.3), (0.4,) * 3), {"mean": "0.1,0.2,0.3", "std": "0.4,0.4,0.4"}),
        (
            Preprocessing((0.0,), (1.0,), (20, 30), (20, 30), "bicubic"),
            {
                "normalization": "none",
                "image_size": "20",
                "image_width": "30",
                "crop_mode": "squash",
                "interpolation": "bicubic",
            },
        ),
    ],
)
def test_settings_are_those_of_data_prep(preprocessing, expected):
    from kondense.data_prep.config import DataPrepConfig

    assert settings(preprocessing) == expected
    config = DataPrepConfig().updated(expected)
    assert (config.size, config.steps, config.interpolation) == (
        preprocessing.crop,
        preprocessing.resize,
        preprocessing.interpolation,
    )
    assert per_channel(config.normalised, len(preprocessing.mean)) == (preprocessing.mean, preprocessing.std)
