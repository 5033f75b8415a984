"""Generated photographs: JPEG files in a folder per class, as a camera's would be read.

A photograph has the spectrum of natural images (amplitudes of 1/f) and the noise of a sensor, so that encoders find in
it what they find in real ones. A few are made, and all others are shifted, mirrored and lit differently.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, CROP = 256, 224  # pixels of a file, and of the image that is trained on
CLASSES, MADE, QUALITY = 10, 24, 90
IMAGE_BYTES = 3 * CROP * CROP


def photograph(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return an image, uint8 [SIDE, SIDE, 3], whose channels are alike in most."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    frequency[0, 0] = 1

    def field() -> NDArray[np.float64]:
        phases = np.exp(2j * np.pi * rng.random((SIDE, SIDE)))
        return np.fft.ifft2(phases / frequency**1.1).real

    common = field()
    channels = [common + 0.3 * field() for _ in range(3)]
    scaled = [(each - each.mean()) / each.std() * 50 + 120 + rng.normal(0, 2, each.shape) for each in channels]
    return np.clip(np.stack(scaled, -1), 0, 255).astype(np.uint8)


def make_photographs(directory: Path, count: int) -> Path:
    """Return a folder of ``count`` JPEG files in a folder per class; one that exists is taken as it is."""
    folder = directory / f"photographs-{count}"
    if folder.exists():
        return folder
    scratch = directory / f"photographs-{count}.part"
    rng = np.random.default_rng(0)
    made = [photograph(rng) for _ in range(MADE)]
    for label in range(CLASSES):
        (scratch / f"class-{label}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        dy, dx = rng.integers(0, SIDE, 2)
        pixels = np.roll(made[number % MADE], (dy, dx), (0, 1))[:, :: rng.choice((-1, 1))]
        lit = np.clip(pixels.astype(np.int16) + rng.integers(-30, 31), 0, 255).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(lit).save(content, "JPEG", quality=QUALITY)
        (scratch / f"class-{number % CLASSES}" / f"{number:07d}.jpg").write_bytes(content.getvalue())
    scratch.rename(folder)
    return folder
