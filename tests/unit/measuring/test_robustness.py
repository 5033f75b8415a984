"""Spoiled images against SciPy and by hand."""

import numpy as np
import pytest
import torch
from kondense.data.dataset import Split
from kondense.measuring.robustness import CORRUPTIONS, contrast, corrupt, measure_robustness, noise
from kondense.measuring.robustness import blur as blurred
from scipy.ndimage import gaussian_filter


def images(count: int = 4, size: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("strength", CORRUPTIONS["blur"][1])
def test_blur_is_scipys(strength: float) -> None:
    values = images().double() / 255
    found = blurred(values.float(), strength, torch.Generator())
    sigma = strength * 20
    radius = int(np.ceil(3 * sigma))
    expected = gaussian_filter(values.numpy(), (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, radius, radius))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_noise_has_the_strength_it_says() -> None:
    flat = torch.full((50, 1, 20, 20), 0.5)
    spoiled = noise(flat, 0.1, torch.Generator().manual_seed(1))
    assert float(spoiled.std()) == pytest.approx(0.1, rel=0.03)
    assert float(spoiled.mean()) == pytest.approx(0.5, abs=0.005)


def test_contrast_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    assert torch.allclose(
        contrast(image, 0.8, torch.Generator()), torch.tensor([[[[0.4, 0.6], [0.5, 0.5]]]]), atol=1e-6
    )


def test_spoiled_images_are_pixels_again() -> None:
    for kind, (_, strengths) in CORRUPTIONS.items():
        spoiled = corrupt(images(), kind, strengths[-1], torch.Generator().manual_seed(0))
        assert spoiled.dtype == torch.uint8
        assert spoiled.shape == images().shape
        assert not torch.equal(spoiled, images())


def test_equal_seeds_spoil_equal_images_alike_and_the_figures_are_accuracies() -> None:
    split = Split(images(30), torch.arange(30) % 3)
    seen: list[torch.Tensor] = []

    def brightest(images_u8: torch.Tensor) -> torch.Tensor:
        seen.append(images_u8)
        return images_u8.double().mean((2, 3))

    first = measure_robustness(brightest, split, images=12, seed=5)
    second = measure_robustness(brightest, split, images=12, seed=5)
    assert first == second
    assert all(torch.equal(one, other) for one, other in zip(seen[:10], seen[10:], strict=True))
    assert first["images"] == 12
    every = [value for found in first["corruptions"].values() for value in found["accuracy"]]
    assert len(every) == 9
    assert first["mean"] == pytest.approx(sum(every) / 9)
    chosen = torch.randperm(30, generator=torch.Generator().manual_seed(5))[:12]
    expected = float((split.images[chosen].double().mean((2, 3)).argmax(1) == split.labels[chosen]).double().mean())
    assert first["clean"] == expected
    assert measure_robustness(brightest, split, images=12, seed=6) != first
