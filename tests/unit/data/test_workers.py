"""Batches that worker processes hand over."""

import tempfile
from pathlib import Path

import pytest
import torch
from kondense.data.workers import FEW, MOST_ADDRESS, delivered


def test_batches_arrive_where_the_temporary_directory_has_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path.joinpath("d" * MOST_ADDRESS)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    indices = torch.arange(2 * FEW).split(FEW // 2)
    batches = list(delivered(lambda index_B: 2 * index_B, indices, None, image_bytes=1))
    assert torch.equal(torch.cat(batches), 2 * torch.arange(2 * FEW))
