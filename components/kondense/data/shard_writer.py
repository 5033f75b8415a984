"""Write images as shards: tar files in WebDataset's layout, lossless PNG and the label as text.

Shapes: C channels, H height, W width.
"""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kondense.data.shards import ShardFile
from kondense.errors import InputError
from kondense.files import sha256

CHANNELS = (1, 3)
COMPRESSION = 1  # zlib's level: higher ones take three times as long for a few percent
SHORT = 16  # characters of the digest in a shard's name
Sink = Callable[[str, Path], None]  # takes a shard's name and its file, which it may move


class ShardWriter:
    """Writes the shards of one split.

    Attributes:
        files: the finished shards.
        places: of each image: number of its shard, offset and length of its PNG there.
    """

    def __init__(self, split: str, scratch: Path, sink: Sink, shard_bytes: int) -> None:
        self.split, self.sink, self.shard_bytes = split, sink, shard_bytes
        self.scratch = scratch / f"{split}.tar"
        self.files: list[ShardFile] = []
        self.places: list[tuple[int, int, int]] = []
        self._tar: tarfile.TarFile | None = None

    def add(self, image_CHW: NDArray[np.uint8], label: int) -> None:
        """Append an image."""
        content = encoded(image_CHW)
        if self._tar is None:
            # Plain records of fixed size, so that equal images give equal bytes.
            self._tar = tarfile.open(self.scratch, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # closed in close
        name = f"{len(self.places):09d}"
        self._append(f"{name}.cls", str(label).encode())
        offset = self._append(f"{name}.png", content)
        self.places.append((len(self.files), offset, len(content)))
        if self._tar.offset >= self.shard_bytes:
            self.close()

    def close(self) -> None:
        """Finish the current shard."""
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        digest = sha256(self.scratch)
        name = f"{self.split}-{len(self.files):06d}-{digest[:SHORT]}.tar"
        self.files.append(ShardFile(name, os.path.getsize(self.scratch), digest))
        self.sink(name, self.scratch)
        self.scratch.unlink(missing_ok=True)

    def _append(self, name: str, content: bytes) -> int:
        """Append a file and return the offset of its content."""
        assert self._tar is not None
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o644
        start = self._tar.offset
        self._tar.addfile(entry, io.BytesIO(content))
        return start + tarfile.BLOCKSIZE


def encoded(image_CHW: NDArray[np.uint8]) -> bytes:
    """Return an image of 1 or 3 channels as PNG.

    Raises:
        InputError: another number of channels.
    """
    from PIL import Image

    if len(image_CHW) not in CHANNELS:
        raise InputError(f"images in shards must have 1 or 3 channels, but got {len(image_CHW)}; use storage=tensors.")
    pixels = image_CHW[0] if len(image_CHW) == 1 else np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()
