"""Latency as a function of channel counts: each shape is measured once, next to the unpruned network."""

import copy
import io
import json
import warnings
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import onnxruntime
import torch
from torch import nn

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.measurements import Count, Positive
from kondense.artifacts.schema import check_fields
from kondense.channels.dependencies import ChannelGroup
from kondense.channels.surgery import remove
from kondense.errors import InputError
from kondense.json_text import LARGEST_JSON, json_object
from kondense.logging import LOG
from kondense.measuring.latency import measure_latency, open_session
from kondense.processes import current
from kondense.store.store import NotFoundError
from kondense.training.checkpoint import Checkpoint

SECONDS = 0.3  # per shape, for both networks together
CONFIRM_SECONDS = 2.0
WARMUP_SECONDS = 0.05
OPSET = 17
TABLE = "latency.json"

Key = tuple[tuple[str, int], ...]


class Row(TypedDict):
    """The latency of one shape: its channels by group, its ratio, and whether the longer measurement gave it."""

    counts: dict[str, Count]
    ratio: Positive
    confirmed: bool


class Table(TypedDict):
    """The content of the table in a checkpoint."""

    unpruned_ms: Positive
    ratios: list[Row]


class Timing:
    """A table of latencies by channel counts; a shape is exported and measured on first use.

    Each measurement alternates between the shape and the unpruned network and keeps the ratio of their lower quartiles:
    other load on the machine slows both, and single slow runs have no effect. A shape that meets a budget is confirmed
    by a longer measurement, since the minimum of many short measurements is biased. The table is stored with the run's
    checkpoints, so that a restarted run makes the same choices.

    Attributes:
        unpruned_ms: median time of the unpruned network.
        ratios: latency relative to the unpruned network's, by (group, channels) pairs in order of their names.
        confirmed: keys of the longer measurements.
    """

    def __init__(
        self,
        module: nn.Module,
        image_shape: tuple[int, int, int],
        batch_size: int,
        checkpoint: Checkpoint | None,
        *,
        seconds: float = SECONDS,
        confirm_seconds: float = CONFIRM_SECONDS,
    ) -> None:
        self.checkpoint, self.seconds, self.confirm_seconds = checkpoint, seconds, confirm_seconds
        generator = np.random.default_rng(0)
        self.images_NCHW = generator.standard_normal((batch_size, *image_shape), dtype=np.float32)
        self.unpruned = self._open(module)
        self.ratios: dict[Key, float] = {}
        self.confirmed: set[Key] = set()
        self.unpruned_ms = 0.0
        if not self._load():
            self.unpruned_ms = current().from_first(self._measure_unpruned)

    def ratio(self, module: nn.Module, groups: Mapping[str, ChannelGroup], counts: Mapping[str, int]) -> float:
        """Return the latency of ``module`` with ``counts`` channels, relative to the unpruned network.

        Args:
            module: the current network; not changed.
            groups: its groups.
            counts: channels by group.
        """
        key = tuple(sorted(counts.items()))
        if key not in self.ratios:
            self.ratios[key] = self.measure(_shaped(module, groups, counts), self.seconds)
            self._save()
        return self.ratios[key]

    def confirm(self, module: nn.Module, groups: Mapping[str, ChannelGroup], counts: Mapping[str, int]) -> float:
        """Return the same from a longer measurement, which replaces the short one."""
        key = tuple(sorted(counts.items()))
        if key not in self.confirmed:
            self.ratios[key] = self.measure(_shaped(module, groups, counts), self.confirm_seconds)
            self.confirmed.add(key)
            self._save()
        return self.ratios[key]

    def _measure_unpruned(self) -> float:
        sessions = {"unpruned": self.unpruned}
        latency = measure_latency(sessions, self.images_NCHW, seconds=self.seconds, warmup_seconds=WARMUP_SECONDS)
        return float(latency["unpruned"].median_ms)

    def measure(self, module: nn.Module, seconds: float) -> float:
        """Measure the latency of ``module`` relative to the unpruned network; of several processes, the first one."""
        return current().from_first(lambda: self._measure(module, seconds))

    def _measure(self, module: nn.Module, seconds: float) -> float:
        sessions = {"unpruned": self.unpruned, "pruned": self._open(module)}
        latency = measure_latency(sessions, self.images_NCHW, seconds=seconds, warmup_seconds=WARMUP_SECONDS)
        pruned_ms, unpruned_ms = (np.percentile(latency[name].samples_ms, 25) for name in ("pruned", "unpruned"))
        return float(pruned_ms / unpruned_ms)

    def _load(self) -> bool:
        content = current().from_first(self._read)
        if content is None:
            return False
        self.unpruned_ms = content["unpruned_ms"]
        for row in content["ratios"]:
            counts = tuple((name, count) for name, count in row["counts"].items())
            self.ratios[counts] = row["ratio"]
            if row["confirmed"]:
                self.confirmed.add(counts)
        return True

    def _read(self) -> dict[str, Any] | None:
        if self.checkpoint is None:
            return None
        key = f"{self.checkpoint.prefix}/{TABLE}"
        try:
            content = json_object(self.checkpoint.store.read(key, limit_bytes=LARGEST_JSON), key)
            check_fields(key, content, Table)
        except NotFoundError:
            return None
        except InputError as error:
            LOG.warning(f"measured latencies are damaged ({error}); they are ignored and measured again")
            return None
        return content

    def _save(self) -> None:
        if self.checkpoint is not None and current().first:
            rows = [
                {"counts": dict(key), "ratio": ratio, "confirmed": key in self.confirmed}
                for key, ratio in self.ratios.items()
            ]
            content = {"unpruned_ms": self.unpruned_ms, "ratios": rows}
            self.checkpoint.store.write(f"{self.checkpoint.prefix}/{TABLE}", json.dumps(content).encode())

    def _open(self, module: nn.Module) -> onnxruntime.InferenceSession:
        # The tracing exporter takes 0.1 s per network, the one for our artifacts seconds; onnxruntime runs the same
        # kernels for both.
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                fold_batch_norms(module),
                (torch.from_numpy(self.images_NCHW),),
                stream,  # type: ignore[arg-type]  # the tracing exporter takes a stream, which torch does not declare
                dynamo=False,
                opset_version=OPSET,
            )
        return open_session(stream.getvalue())


def _shaped(module: nn.Module, groups: Mapping[str, ChannelGroup], counts: Mapping[str, int]) -> nn.Module:
    """Return a copy with ``counts`` channels; which ones does not affect the latency."""
    shape = copy.deepcopy(module)
    removed = {name: groups[name].lowest(torch.zeros(groups[name].channels), count) for name, count in counts.items()}
    remove(shape, groups, removed)
    return shape
