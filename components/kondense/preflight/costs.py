"""How long a step will take on this machine, and how much memory: from one of its training steps, if it trains.

The training step is the real one, with the step's loss, teachers, masks and optimizer. It is repeated on a batch of the
real size where that takes a fraction of a second, else on a smaller one and on half of that: what both take alike, such
as the calls of many small layers, is not scaled.

Shapes: B images in a batch, C channels, H height, W width.
"""

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.config import Config
from kondense.data.at_once import at_once
from kondense.data.dataset import Dataset
from kondense.measuring.accuracy import predict
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.methods import METHODS
from kondense.training.probe import Training
from kondense.training.settings import TrainingConfig

START_S = 0.8  # of a step of a run on an idle machine besides: its process, inputs, outputs and their digests
REPEATS = 2
LEAST_BATCH = 2  # images that a batch norm can train on
LEAST_SHARE = 0.1  # of a batch's time per image: what one more image takes at least
BUDGET_S = 0.15  # of one repeated training step
BUDGET_BYTES = 2**28  # of what it saves for the backward pass


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The numbers of images of a run's splits."""

    train: int
    validation: int
    test: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a step takes.

    Attributes:
        seconds: on this machine; 0 if it cannot be told.
        memory_bytes: peak of its process; 0 if it cannot be told.
    """

    seconds: float = 0.0
    memory_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What one training step takes.

    Attributes:
        seconds: of a training step at the real batch size.
        forward_s: of the prediction of one image.
        saved_bytes: what the forward pass of a real batch keeps for the backward pass.
        largest_bytes: the largest tensor of those.
        state_bytes: weights, gradients, states of the optimizer, averages.
    """

    seconds: float
    forward_s: float
    saved_bytes: int
    largest_bytes: int
    state_bytes: int

    def scaled(self, seconds: float, saved: float) -> "StepCost":
        """Return the cost of a step whose forward and backward pass take these multiples of time and memory."""
        return dataclasses.replace(
            self,
            seconds=self.seconds * seconds,
            forward_s=self.forward_s * seconds,
            saved_bytes=int(self.saved_bytes * saved),
            largest_bytes=int(self.largest_bytes * saved),
        )


class Probe:
    """Called in each epoch of a trial run; measures its training step.

    Args:
        batch_size: of the real run.

    Attributes:
        costs: of the training steps, one for each epoch.
        spent_s: what measuring took.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.costs: list[StepCost] = []
        self.spent_s = 0.0

    def __call__(self, training: Training, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Measure a training step like that of ``batch``: index [B], images uint8 [B, C, H, W], labels [B]."""
        began = time.monotonic()
        self.costs.append(step_cost(training, batch, self.batch_size))
        self.spent_s += time.monotonic() - began


def step_cost(training: Training, batch: tuple[Tensor, Tensor, Tensor], batch_size: int) -> StepCost:
    """Return what a training step at ``batch_size`` takes; ``training`` is trained on.

    Args:
        training: has trained a step on ``batch``.
        batch: index [B], images uint8 [B, C, H, W], labels [B].
        batch_size: of the real run.
    """
    given = len(batch[0])
    small, saved = timed_step(training, batch)
    affordable = min(BUDGET_S / max(small, 1e-6), BUDGET_BYTES / max(saved.total, 1)) * given
    tried = max(given, min(batch_size, int(affordable)))
    steps = [(small, saved)]
    if tried > given:
        batch = tiled(batch, tried)
        timed_step(training, batch)  # takes the memory
        steps = [timed_step(training, batch) for _ in range(REPEATS)]
    elif small < BUDGET_S:
        steps.append(timed_step(training, batch))
    seconds, saved = min(steps, key=lambda each: each[0])  # the least disturbed
    scale = batch_size / tried
    if tried < batch_size and tried >= 2 * LEAST_BATCH:
        index, images_u8, labels = batch
        part = (index[: tried // 2], images_u8[: tried // 2], labels[: tried // 2])
        half = min(timed_step(training, part)[0] for _ in range(REPEATS))
        seconds = extrapolated(half, seconds, tried // 2, tried, batch_size)
    else:
        seconds *= scale
    return StepCost(
        seconds=seconds,
        forward_s=forward_seconds(training.module, training.dataset, training.device),
        saved_bytes=int(saved.total * scale),
        largest_bytes=int(saved.largest * scale),
        state_bytes=state_bytes(training),
    )


def calibrated(config: Config, sizes: Sizes) -> int:
    """Return the number of images on which a step calibrates."""
    if not isinstance(config, QuantizeConfig) or not METHODS[config.method].options.get("calibrates"):
        return 0
    return min(config.calibration_images, sizes.train)


def extrapolated(half_s: float, whole_s: float, half: int, whole: int, size: int) -> float:
    """Return the seconds of a step on ``size`` images, from those of steps on ``half`` and ``whole`` images."""
    each_s = min(max((whole_s - half_s) / (whole - half), LEAST_SHARE * whole_s / whole), whole_s / whole)
    return whole_s + (size - whole) * each_s


def timed_step(training: Training, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[float, "Saved"]:
    """Return the seconds of a training step, and what it saved for its backward pass."""
    saved = Saved(parameter.untyped_storage().data_ptr() for parameter in training.module.parameters())
    synchronise(training.device)
    began = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        training.train_step(*batch)
    synchronise(training.device)
    return time.perf_counter() - began, saved


def forward_seconds(module: nn.Module, dataset: Dataset, device: torch.device) -> float:
    """Return the seconds that the prediction of one validation image takes."""
    synchronise(device)
    began = time.perf_counter()
    predict(module, dataset.validation, dataset, device=device)
    return (time.perf_counter() - began) / len(dataset.validation)


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Saved:
    """Counts the tensors that autograd saves, each storage once and without weights."""

    def __init__(self, weights: Iterable[int]) -> None:
        self.known = set(weights)
        self.total = self.largest = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor, and save it as it is."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.total += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        return tensor


def tiled(batch: tuple[Tensor, Tensor, Tensor], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch of ``size`` images, those of ``batch`` over and over."""
    index_B = torch.arange(size) % len(batch[0])
    index, images_u8, labels = (each[index_B.to(each.device)] for each in batch)
    return index, images_u8, labels


def state_bytes(training: Training) -> int:
    """Return the size of weights, gradients, the optimizer's states and averages of a training run."""
    states = [value for state in training.optimizer.state.values() for value in state.values()]
    tensors = [value for value in states if isinstance(value, Tensor)]
    gradients = [each.grad for each in training.module.parameters() if each.grad is not None]
    return module_bytes(training.module) + sum(
        each.nbytes for each in (*gradients, *tensors, *training.average.values(), *training.masks.values())
    )


def module_bytes(module: nn.Module) -> int:
    """Return the size of a network's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


@dataclasses.dataclass(frozen=True)
class RunImages:
    """The images of a run.

    Attributes:
        shape: of one image, [C, H, W].
        sizes: of the splits; None if they are not known.
        in_memory: whether a process holds all of them, as it does unless they are in shards.
    """

    shape: tuple[int, int, int]
    sizes: Sizes | None
    in_memory: bool = True

    @property
    def held_bytes(self) -> int:
        """What a process holds of them."""
        sizes = self.sizes if self.in_memory else None
        return math.prod(self.shape) * (sizes.train + sizes.validation + sizes.test) if sizes else 0

    @property
    def computed_bytes(self) -> int:
        """The normalised images that a network without gradients takes at once."""
        return 4 * math.prod(self.shape) * at_once(self.shape)


@dataclasses.dataclass(frozen=True)
class Trial:
    """The trial of a step on this machine, on a few images.

    Attributes:
        costs: one for each epoch that was trained, of one epoch; empty if the step does not train.
        seconds: it took, without the measurements.
        forward_s: of the prediction of one image by the step's model, where it does not train.
        process_bytes: memory of the process after it.
        shared_bytes: of it, what the processes of several devices share (``kondense.launch``): that of torch, before a
            step; none on GPUs, where the process that starts them comes on top.
        busy: time that passed during it / processor time, at least 1: how much longer other work makes a step.
    """

    costs: list[StepCost]
    seconds: float
    forward_s: float
    process_bytes: int
    shared_bytes: int
    busy: float = 1.0


def estimate(config: Config, images: RunImages, trial: Trial, models: Mapping[str, Model]) -> Estimate:
    """Return what a step takes; of several devices, the time on one and the memory of all their processes together.

    Args:
        config: the real one.
        images: of the run.
        trial: of the step.
        models: those that the step loads, by role.
    """
    loaded = trial.process_bytes + images.held_bytes + sum(module_bytes(model.module) for model in models.values())
    if not isinstance(config, TrainingConfig):
        return Estimate()
    if not trial.costs:
        seconds = 0.0
        if sizes := images.sizes:
            seen = calibrated(config, sizes) + 2 * sizes.validation  # before and after
            seconds = START_S * trial.busy + trial.seconds + seen * trial.forward_s
        return Estimate(seconds, loaded + images.computed_bytes)
    dearest = max(trial.costs, key=lambda cost: cost.saved_bytes + cost.state_bytes)
    count = config.devices or 1
    saved_bytes, largest_bytes = dearest.saved_bytes // count, dearest.largest_bytes // count
    own = loaded + dearest.state_bytes + max(saved_bytes + 2 * largest_bytes, images.computed_bytes)
    if count == 1:
        memory = own
    elif trial.shared_bytes:
        memory = trial.shared_bytes + count * (own - trial.shared_bytes)
    else:
        memory = count * own + trial.process_bytes
    if not (sizes := images.sizes):
        return Estimate(0.0, memory)
    steps = max(1, sizes.train // min(config.batch_size, sizes.train))
    mean = sum(cost.seconds for cost in trial.costs) / len(trial.costs)
    validated = sizes.validation * max(cost.forward_s for cost in trial.costs)
    epochs = config.epochs * len(trial.costs)
    return Estimate(START_S * trial.busy + trial.seconds + epochs * (steps * mean + validated), memory)
