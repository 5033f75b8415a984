"""What takes a part of the images at a time takes fewer of large ones."""

import pytest
import torch
from kondense.data.at_once import BYTES, MOST, at_once
from kondense.data.dataset import Dataset
from kondense.distill.cache import fill
from kondense.distill.teachers import Teachers
from kondense.measuring import robustness
from kondense.measuring.accuracy import TRIED, predict
from kondense.prune.batch_norm import LEAST, reestimate
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import calibration_batches
from torch import Tensor, nn

IMAGES, SIDE = 70, 224
LARGE = (3, SIDE, SIDE)


class Watched(nn.Module):
    """Logits of two classes; notes the number of images of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.sizes = nn.BatchNorm2d(3), []

    def forward(self, images_NCHW: Tensor) -> Tensor:
        self.sizes.append(len(images_NCHW))
        return self.norm(images_NCHW[:, :, ::32, ::32]).mean((2, 3))[:, :2]


@pytest.fixture(scope="module")
def large() -> Dataset:
    pixels = torch.randint(0, 256, (IMAGES, *LARGE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = (pixels, torch.arange(IMAGES) % 2)
    return Dataset.from_arrays(train=split, validation=split, test=split, classes=["a", "b"])


def test_the_bound_is_of_bytes_for_large_images_and_of_images_for_small_ones() -> None:
    assert at_once((1, 28, 28)) == at_once((3, 32, 32)) == MOST
    assert at_once((3, 32, 32), 128) == 128
    assert BYTES - 4 * 3 * SIDE**2 < 4 * 3 * SIDE**2 * at_once(LARGE) <= BYTES
    assert at_once((3, 4096, 4096)) == 1


@pytest.mark.parametrize("what", ["predict", "cache", "robustness", "norms", "calibration"])
def test_large_images_are_taken_in_small_parts_and_none_is_left_out(
    large: Dataset, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, most = Watched(), at_once(LARGE)
    if what == "predict":
        assert len(predict(network, large.validation, large)) == IMAGES
        while network.sizes[0] == TRIED:
            del network.sizes[0]
    elif what == "cache":
        fill(Teachers([network], [1.0]), large, torch.device("cpu"))
    elif what == "robustness":
        monkeypatch.setattr(robustness, "CORRUPTIONS", {"contrast": robustness.CORRUPTIONS["contrast"]})
        measured = robustness.measure_robustness(
            lambda part_u8: network(large.normalise(part_u8)), large.test, images=IMAGES, seed=0
        )
        assert measured["images"] == IMAGES
        network.sizes = network.sizes[:-1]  # the images as they are, of which the caller takes parts
        assert sum(network.sizes) == 3 * IMAGES
    elif what == "norms":
        reestimate(network, large, seed=0)
        most = LEAST
        pixels = large.normalise(large.train.images)[:, :, ::32, ::32].double()
        assert torch.allclose(network.norm.running_mean.double(), pixels.mean((0, 2, 3)), atol=1e-6)
        assert torch.allclose(network.norm.running_var.double(), pixels.var((0, 2, 3)), rtol=1e-5)
    else:
        network.sizes = [len(part) for part in calibration_batches(large, QuantizeConfig(calibration_images=IMAGES))]
    assert max(network.sizes) <= most
    assert what == "robustness" or sum(network.sizes) == IMAGES
