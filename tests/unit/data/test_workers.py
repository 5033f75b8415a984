"""Batches that worker processes hand over."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from kondense.data.workers import FEW, MOST_ADDRESS, delivered
from kondense.scratch import scratch_directory

READER = """
import sys, torch
from kondense.data.workers import FEW, delivered
indices = torch.arange(20 * FEW).split(FEW // 2)
for batch in delivered(lambda index_B: 2 * index_B, indices, None, image_bytes=1):
    print(len(batch), flush=True)
    sys.stdin.readline()
"""


def test_batches_arrive_where_the_temporary_directory_has_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path.joinpath("d" * MOST_ADDRESS)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    indices = torch.arange(2 * FEW).split(FEW // 2)
    batches = list(delivered(lambda index_B: 2 * index_B, indices, None, image_bytes=1))
    assert torch.equal(torch.cat(batches), 2 * torch.arange(2 * FEW))


def test_a_killed_reader_and_its_workers_leave_nothing_that_the_next_program_does_not_remove(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(prefix="k") as short:
        environment = {**os.environ, "TMPDIR": short, "KONDENSE_WORKERS": "1", "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            [sys.executable, "-c", READER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline()
            assert list(Path(short).rglob("listener-*"))
            reader.send_signal(signal.SIGKILL)
            reader.stdout.read()  # ends with its workers, which have the pipe
        assert list(Path(short).iterdir())
        monkeypatch.setattr(tempfile, "tempdir", short)
        with scratch_directory("next"):
            pass
        assert not list(Path(short).iterdir())
