import pytest
import torch
from kondense.training.augment import PADDING, augment, mix
from kondense.training.settings import TrainingConfig


def images(batch=64):
    return torch.randint(0, 256, (batch, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def windows(image, flips):
    padded = torch.nn.functional.pad(image, (PADDING,) * 4)
    size = image.shape[-1]
    for row in range(2 * PADDING + 1):
        for column in range(2 * PADDING + 1):
            window = padded[:, row : row + size, column : column + size]
            yield window
            if flips:
                yield window.flip(-1)


@pytest.mark.parametrize("names", [("crop",), ("crop", "flip")])
def test_every_image_is_one_of_its_shifted_windows(names):
    before = images()
    after = augment(before, names, torch.Generator().manual_seed(3))
    for image, result in zip(before, after, strict=True):
        assert any(torch.equal(result, window) for window in windows(image, "flip" in names))
    assert not torch.equal(before, after)


def test_none_changes_nothing_and_equal_seeds_give_equal_batches():
    assert torch.equal(augment(images(), (), torch.Generator()), images())
    first, second = (augment(images(), ("crop", "flip"), torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("large", [0, 2**14])
def test_flips_mirror_half_of_the_images(monkeypatch, large):
    monkeypatch.setattr("kondense.training.augment.LARGE", large)
    before = images()
    after = augment(before.clone(), ("flip",), torch.Generator().manual_seed(0))
    kept = [torch.equal(*pair) for pair in zip(before, after, strict=True)]
    mirrored = [torch.equal(image.flip(2), result) for image, result in zip(before, after, strict=True)]
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 16 < sum(kept) < 48


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["resized_crop", "rand_augment"])
def test_every_image_is_changed_on_its_own(name, channels):
    torch.manual_seed(0)
    before = images()[:1, :channels].repeat(8, 1, 1, 1)
    after = augment(before, (name,), torch.Generator())
    assert after.shape == before.shape and after.dtype == torch.uint8
    assert len({tuple(image.flatten().tolist()) for image in after}) > 4


@pytest.mark.parametrize("names", [("mixup",), ("cutmix",), ("mixup", "cutmix")])
def test_mixed_images_have_the_mixed_labels(names):
    torch.manual_seed(0)
    labels = torch.arange(4)
    before = labels.float()[:, None, None, None].expand(4, 1, 10, 10)
    after, probabilities = mix(before, labels, names, classes=5)
    assert torch.allclose(probabilities.sum(1), torch.ones(4))
    expected = (probabilities * torch.arange(5.0)).sum(1)
    torch.testing.assert_close(after.mean((1, 2, 3)), expected)


def test_without_mixing_labels_stay():
    labels = torch.arange(4)
    assert mix(images()[:4].float(), labels, ("crop",), classes=5)[1] is labels


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", ()),
        ("crop", ("crop",)),
        ("crop_flip", ("crop", "flip")),
        ("mixup+flip+resized_crop", ("flip", "resized_crop", "mixup")),
    ],
)
def test_names_are_joined_by_a_plus(text, names):
    assert TrainingConfig(augment=text).augmentations == names


def test_an_unknown_name_lists_the_right_ones():
    with pytest.raises(ValueError, match="augment must be of none, crop_flip, crop, .*, but got 'blur' in 'flip.blur'"):
        TrainingConfig(augment="flip+blur")
