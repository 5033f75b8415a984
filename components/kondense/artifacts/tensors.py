"""Files of named tensors in the safetensors format, which cannot contain code."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kondense.failure import one_line
from kondense.files import ArtifactError


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` to ``path``; the same tensors give the same bytes.

    Raises:
        OSError: the disk is full or not writable.
    """
    # Not save_file: on a full disk it raises a SafetensorError without errno.
    path.write_bytes(tensor_bytes(tensors))


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a file of ``tensors``."""
    return save(dict(tensors))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in ``path``.

    Raises:
        ArtifactError: the file is missing, truncated or has another format, such as pickle.
    """
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ArtifactError(f"{path} must be in the safetensors format, but: {one_line(error)}.") from None
