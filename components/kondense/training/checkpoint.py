"""Checkpoints: the state of a training run, under a key made of everything that determines the run.

The key excludes the number of epochs, since schedules depend on their horizon only: a run of 3 epochs out of 9 is the
beginning of the run of 9. A checkpoint is safetensors after its SHA-256; a damaged one is reported, ignored and
overwritten. Concurrent runs with one key write equal files.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from kondense.artifacts.measurements import Count
from kondense.artifacts.schema import check_fields
from kondense.config import Config
from kondense.errors import InputError
from kondense.failure import one_line
from kondense.json_text import json_object
from kondense.logging import LOG
from kondense.networks.code import code_digests
from kondense.scratch import scratch_directory
from kondense.store.open import open_store
from kondense.store.store import NotFoundError, Store, TooLargeError
from kondense.training.settings import TrainingConfig

FORMAT_VERSION = 2
VARIABLE = "KONDENSE_CHECKPOINTS"  # environment variable with the location, as in open_store
SAVE_SECONDS = 300.0  # between checkpoints within an epoch; every epoch ends with one anyway


class Point(TypedDict):
    """A point of a curve, at least."""

    epoch: float
    train_loss: float
    validation_accuracy: float
    learning_rate: float


class Position(TypedDict):
    """What the position of a state holds, at least."""

    format_version: int
    epoch: Count
    step: Count
    curve: NotRequired[list[Point]]
    begun: NotRequired[dict[str, Count]]
    scaler: NotRequired[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class State:
    """A point in a run: ``tensors`` by name, ``position`` (epoch, step) and other JSON values."""

    tensors: Mapping[str, Tensor]
    position: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The checkpoints of one run: files ``<prefix>/<epoch>-<step>`` in a store.

    ``seconds`` is the least time between two of them within an epoch.
    """

    store: Store
    prefix: str
    seconds: float = SAVE_SECONDS

    def child(self, name: str) -> "Checkpoint":
        """Return the checkpoints of one phase of the run."""
        return dataclasses.replace(self, prefix=f"{self.prefix}/{name}")

    def save(self, state: State) -> str:
        """Write ``state`` whole or not at all and return its key; memory is needed for a small part of it only."""
        header = json.dumps({"format_version": FORMAT_VERSION, **state.position})
        key = f"{self.prefix}/{state.position['epoch']:06d}-{state.position['step']:08d}"
        with scratch_directory("checkpoint") as scratch:
            body, whole = scratch / "body", scratch / "whole"
            save_file(_apart(state.tensors), body, {"position": header})
            with body.open("rb") as source, whole.open("wb") as target:
                target.write(hashlib.file_digest(source, "sha256").digest())
                source.seek(0)
                shutil.copyfileobj(source, target)
            self.store.upload_file(key, whole)
        return key

    def load(self, *, epochs: int) -> State | None:
        """Return the latest intact state within the first ``epochs`` epochs, if any."""
        for key in sorted(self.store.list(self.prefix + "/"), reverse=True):
            name = key.rpartition("/")[2]
            epoch, _, step = name.partition("-")
            if key != f"{self.prefix}/{name}" or not (epoch.isdigit() and step.isdigit()):
                continue
            if (int(epoch), int(step)) <= (epochs, 0):
                try:
                    return _decode(self.store.read(key))
                except NotFoundError:
                    continue  # a concurrent run with the same key has deleted it
                except (TooLargeError, ValueError) as error:
                    LOG.warning(f"checkpoint {key} is damaged ({error}); it is ignored and that part is trained again")
        return None

    def discard(self, key: str) -> None:
        """Delete one checkpoint."""
        self.store.delete(key)


@contextlib.contextmanager
def checkpoints_at(uri: str | Path) -> Iterator[None]:
    """Keep the checkpoints of the block at ``uri``; if empty, where the environment says."""
    before = os.environ.get(VARIABLE)
    if uri:
        os.environ[VARIABLE] = str(uri)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def open_checkpoint(
    stage: str, config: Config, inputs: Mapping[str, str], networks: Iterable[str] = ()
) -> Checkpoint | None:
    """Return the checkpoints of a stage's run, or None if ``KONDENSE_CHECKPOINTS`` is not set.

    The code of the user's that the run depends on is part of the key: that of networks and of registered methods.

    Args:
        stage: the stage's name.
        config: its parameters; ``epochs`` enters the key only through the schedule's horizon.
        inputs: digests of its input artifacts, by role.
        networks: names of the networks of its input artifacts.
    """
    uri = os.environ.get(VARIABLE, "")
    if not uri:
        return None
    parameters = config.to_dict()
    if isinstance(config, TrainingConfig):
        del parameters["devices"]  # a run may continue in another number of processes
        parameters |= {"epochs": config.horizon, "max_epochs": config.horizon}
    texts = [value for value in parameters.values() if isinstance(value, str)]
    identity = {
        "stage": stage,
        "config": parameters,
        "inputs": dict(inputs),
        "code": code_digests([*texts, *networks]),
        "format_version": FORMAT_VERSION,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Checkpoint(open_store(uri), f"{stage}/{key}")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with memory of their own, which the file format asks for: tied ones are copied."""
    held: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage()
        whole = tensor.is_contiguous() and memory.nbytes() == tensor.nbytes and memory.data_ptr() not in held
        apart[name] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
        held.add(memory.data_ptr())
    return apart


def _decode(content: bytes) -> State:
    digest, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != digest:
        raise InputError("its digest does not match")
    length = int.from_bytes(body[:8], "little")  # the safetensors format: header length, JSON header, data
    try:
        tensors = load(body)  # which has checked that all metadata are texts
        header = json_object(body[8 : 8 + length], "its header")
        position = json_object(header["__metadata__"]["position"], "its position", finite=False)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"it is not a checkpoint: {one_line(error)}") from None
    check_fields("its position", position, Position)
    if position.pop("format_version") != FORMAT_VERSION:
        raise InputError(f"its format version is not {FORMAT_VERSION}")
    return State(tensors, position)
