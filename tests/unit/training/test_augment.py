import pytest
import torch
from kondense.training.augment import PADDING, augment


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


@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_every_image_is_one_of_its_shifted_windows(kind):
    before = images()
    after = augment(before, kind, torch.Generator().manual_seed(3))
    for image, result in zip(before, after, strict=True):
        assert any(torch.equal(result, window) for window in windows(image, kind == "crop_flip"))
    assert not torch.equal(before, after)


def test_none_changes_nothing_and_equal_seeds_give_equal_batches():
    assert torch.equal(augment(images(), "none", torch.Generator()), images())
    first, second = (augment(images(), "crop_flip", torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
