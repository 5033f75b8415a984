"""Write images as shards: tar files in WebDataset's layout, PPM, PGM or PNG and the label as text.

Shapes: C channels, H height, W width.
"""

import array
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kondense.data.shard_images import PPM, encoded, suffix_of
from kondense.data.shards import ShardFile
from kondense.files import sha256

SHORT = 16  # characters of the digest in a shard's name
Sink = Callable[[str, Path], None]  # takes a shard's name and its file, which it may move


class ShardWriter:
    """Writes the shards of one split.

    Attributes:
        files: the finished shards.
    """

    def __init__(self, split: str, scratch: Path, sink: Sink, shard_bytes: int, encoding: str = PPM) -> None:
        self.split, self.sink, self.shard_bytes, self.encoding = split, sink, shard_bytes, encoding
        self.scratch = scratch / f"{split}.tar"
        self.files: list[ShardFile] = []
        self._places = array.array("q")
        self._tar: tarfile.TarFile | None = None

    def add(self, image_CHW: NDArray[np.uint8], label: int) -> None:
        """Append an image; InputError unless it has 1 or 3 channels."""
        content = encoded(image_CHW, self.encoding)
        if self._tar is None:
            # Plain records of fixed size, so that equal images give equal bytes.
            self._tar = tarfile.open(self.scratch, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # closed in close
        name = f"{len(self._places) // 3:09d}"
        self._append(f"{name}.cls", str(label).encode())
        offset = self._append(f"{name}.{suffix_of(content)}", content)
        self._places.extend((len(self.files), offset, len(content)))
        if self._tar.offset >= self.shard_bytes:
            self.close()

    @property
    def places(self) -> NDArray[np.int64]:
        """Of each image: number of its shard, offset and length of its file there, [N, 3]."""
        return np.array(self._places, np.int64).reshape(-1, 3)

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
        self._tar.getmembers().clear()  # it keeps half a kilobyte for each, for reading
        return start + tarfile.BLOCKSIZE
