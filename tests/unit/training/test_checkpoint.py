"""A checkpoint that is damaged, of another version or another's is reported, ignored and trained again."""

import hashlib
import json
import logging
import re

import pytest
import torch
from kondense.store.local import LocalStore
from kondense.training.checkpoint import FORMAT_VERSION, Checkpoint, State
from safetensors.torch import save

POSITION = {
    "format_version": FORMAT_VERSION,
    "epoch": 1,
    "step": 0,
    "loss_sum": float("nan"),
    "curve": [],
    "scaler": {},
}


def read(directory, body, caplog):
    path = directory / "c" / "000001-00000000"
    path.parent.mkdir()
    path.write_bytes(hashlib.sha256(body).digest() + body)
    with caplog.at_level(logging.WARNING, "kondense"):
        return Checkpoint(LocalStore(directory), "c").load(epochs=2)


def body_of(position):
    return save({"w": torch.zeros(1)}, {"position": position if isinstance(position, str) else json.dumps(position)})


def test_what_was_saved_is_read(tmp_path, caplog):
    assert read(tmp_path, body_of(POSITION), caplog).position["epoch"] == 1
    checkpoint = Checkpoint(LocalStore(tmp_path), "own")
    position = {name: value for name, value in POSITION.items() if name != "format_version"}
    checkpoint.save(State({"w": torch.ones(2)}, position | {"loss_sum": 0.5}))
    assert checkpoint.load(epochs=2).position == position | {"loss_sum": 0.5}


def test_one_that_no_memory_holds_is_told_and_ignored(tmp_path, caplog):
    (tmp_path / "c").mkdir()
    with (tmp_path / "c" / "000001-00000000").open("wb") as file:
        file.truncate(2**42)  # takes no room on the disk
    with caplog.at_level(logging.WARNING, "kondense"):
        assert Checkpoint(LocalStore(tmp_path), "c").load(epochs=2) is None
    assert "must have at most" in caplog.text and "that part is trained again" in caplog.text


def test_tensors_that_share_memory_are_saved_each(tmp_path):
    checkpoint = Checkpoint(LocalStore(tmp_path), "own")
    tied, table = torch.arange(6.0), torch.arange(12.0).view(3, 4)
    tensors = {"a": tied, "b": tied, "turned": tied.view(2, 3).T, "row": table[1], "part": table[:, 1:3]}
    checkpoint.save(State(tensors, {name: value for name, value in POSITION.items() if name != "format_version"}))
    found = checkpoint.load(epochs=2).tensors
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        ("[" * 100_000 + "]" * 100_000, "at most 100 levels"),
        ({"epoch": 1}, "must have a key 'format_version'"),
        (POSITION | {"format_version": 1}, "its format version is not"),
        (POSITION | {"epoch": "1"}, "epoch must be int"),
        (POSITION | {"step": -1}, r"step must be in \[0, inf\)"),
        (POSITION | {"step": None}, "step must be int"),
        (POSITION | {"curve": [1]}, "curve.* must be dict"),
        (POSITION | {"scaler": []}, "scaler must be dict"),
        ([POSITION], "must be a JSON object, but got list"),
        ('{"epoch": 1, "epoch": 2}', "stands twice"),
    ],
)
def test_a_position_that_breaks_a_rule_is_told_and_ignored(tmp_path, caplog, position, reason):
    assert read(tmp_path, body_of(position), caplog) is None
    (record,) = caplog.records
    assert "it is ignored and that part is trained again" in record.getMessage()
    assert re.search(reason, record.getMessage())


@pytest.mark.parametrize("body", [b"", b"\xff" * 8, body_of(POSITION)[:40], save({"w": torch.zeros(1)})])
def test_another_file_is_no_checkpoint(tmp_path, caplog, body):
    assert read(tmp_path, body, caplog) is None
    assert "is damaged (it is not a checkpoint: " in caplog.text
