"""What channel counts cost in time: the network of each shape, measured once beside the unpruned one."""

import copy
import io
import json
import warnings
from collections.abc import Mapping

import numpy as np
import onnxruntime
import torch
from torch import nn

from components.artifacts.fold import fold_batch_norms
from components.artifacts.store import NotFoundError
from components.measuring.latency import Latency, measure_latency, open_session
from components.prune.dependencies import ChannelGroup
from components.prune.surgery import remove
from components.training.checkpoint import Checkpoint

SECONDS = 0.3  # per shape, for both networks together
WARMUP_SECONDS = 0.05
OPSET = 17
TABLE = "latency.json"


class Timing:
    """A table of latencies by channel counts; a shape is exported and measured when it is first asked for.

    Each measurement takes turns between the shape and the unpruned network, and what is kept is the median of
    the turns' ratios: a machine that is busy for a while slows both. The table is kept beside the run's
    checkpoints, so that a run that is started again sees the same figures and takes the same way.

    Attributes:
        unpruned_ms: median time of the unpruned network.
        ratios: time relative to the unpruned network's, by (group, channels) pairs in order of their names.
    """

    def __init__(
        self, module: nn.Module, image_shape: tuple[int, int, int], batch_size: int, checkpoint: Checkpoint | None
    ) -> None:
        self.checkpoint = checkpoint
        generator = np.random.default_rng(0)
        self.images_NCHW = generator.standard_normal((batch_size, *image_shape), dtype=np.float32)
        self.unpruned = self._open(module)
        self.ratios: dict[tuple[tuple[str, int], ...], float] = {}
        self.unpruned_ms = 0.0
        if not self._load():
            found = measure_latency(
                {"unpruned": self.unpruned}, self.images_NCHW, seconds=SECONDS, warmup_seconds=WARMUP_SECONDS
            )
            self.unpruned_ms = found["unpruned"].median_ms

    def ratio(
        self, module: nn.Module, groups: Mapping[str, ChannelGroup], counts: Mapping[str, int], seconds: float = SECONDS
    ) -> float:
        """Return the time of ``module`` with as many channels as ``counts`` says, relative to the unpruned network.

        Args:
            module: the network as it stands; left as it is.
            groups: its groups.
            counts: channels by group.
            seconds: how long to measure, if the shape is new.
        """
        key = tuple(sorted(counts.items()))
        if key not in self.ratios:
            shape = copy.deepcopy(module)
            zeros = {name: torch.zeros(group.channels) for name, group in groups.items()}
            remove(shape, groups, {name: groups[name].lowest(zeros[name], count) for name, count in counts.items()})
            self.ratios[key] = self.measure(shape, seconds)
            self._save()
        return self.ratios[key]

    def measure(self, module: nn.Module, seconds: float) -> float:
        """Return the time of ``module`` relative to the unpruned network, measured now."""
        sessions = {"unpruned": self.unpruned, "pruned": self._open(module)}
        found = self._turns(sessions, seconds)
        return float(np.median(found["pruned"].samples_ms / found["unpruned"].samples_ms))

    def _turns(self, sessions: Mapping[str, onnxruntime.InferenceSession], seconds: float) -> dict[str, Latency]:
        return measure_latency(sessions, self.images_NCHW, seconds=seconds, warmup_seconds=WARMUP_SECONDS)

    def _load(self) -> bool:
        if self.checkpoint is None:
            return False
        try:
            content = json.loads(self.checkpoint.store.read(f"{self.checkpoint.prefix}/{TABLE}"))
        except NotFoundError:
            return False
        self.unpruned_ms = content["unpruned_ms"]
        self.ratios = {tuple((name, count) for name, count in counts): ratio for counts, ratio in content["ratios"]}
        return True

    def _save(self) -> None:
        if self.checkpoint is not None:
            content = {"unpruned_ms": self.unpruned_ms, "ratios": [[key, ratio] for key, ratio in self.ratios.items()]}
            self.checkpoint.store.write(f"{self.checkpoint.prefix}/{TABLE}", json.dumps(content).encode())

    def _open(self, module: nn.Module) -> onnxruntime.InferenceSession:
        # The exporter by tracing takes 0.1 s where the one that writes our artifacts takes seconds per network;
        # onnxruntime makes the same kernels of both.
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                fold_batch_norms(module),
                (torch.from_numpy(self.images_NCHW),),
                stream,
                dynamo=False,
                opset_version=OPSET,
            )
        return open_session(stream.getvalue())
