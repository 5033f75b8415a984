"""A training run in progress.

Shapes: B images in a batch, C channels, H height, W width, K classes.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.data.shards import ShardError
from kondense.errors import KondenseError
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.memory_format import place_in_format
from kondense.networks.state import load_state
from kondense.processes import PeerError, check_devices, current
from kondense.store.store import StoreError
from kondense.training.augment import mix
from kondense.training.checkpoint import State
from kondense.training.device import choose_device, choose_memory_format, choose_precision
from kondense.training.feed import Feed, step_generator
from kondense.training.losses import Loss, Objective, label_loss
from kondense.training.masking import Masking
from kondense.training.optimizers import make_optimizer, restore_state, saved_state
from kondense.training.outputs import TrainingOutputs
from kondense.training.probe import look
from kondense.training.recomputation import recomputed, told_blocks
from kondense.training.replicas import StepLoss, replicated
from kondense.training.schedules import learning_rate
from kondense.training.settings import TrainingConfig
from kondense.training.synchronised import SynchronisedBatchNorms

PARTS = ("module", "average", "mask", "objective")  # of the tensors of a checkpoint, beside the optimizer's


DIVERGED = 100.0  # a loss that has grown by this factor is told


class NonFiniteLossError(KondenseError, ArithmeticError):
    """The loss became NaN or infinite."""


class Trainer:
    """A training run in progress: network, optimizer, position and curve."""

    def __init__(
        self,
        module: nn.Module,
        dataset: Dataset,
        config: TrainingConfig,
        masks: Mapping[str, Tensor],
        loss: Loss,
        *,
        masking: Masking | None = None,
    ) -> None:
        check_devices(config.devices)
        self.config, self.dataset, self.loss, self.masking = config, dataset, loss, masking
        self.processes = current()
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        images_BCHW = dataset.normalise(dataset.train.images[:2]).to(self.device)
        self.memory_format = choose_memory_format(module.to(self.device), images_BCHW)
        self.module = place_in_format(module, self.memory_format).train()
        self.forward = torch.compile(self.module) if config.compile else self.module
        self.blocks = told_blocks(self.module) if config.recompute_activations else []
        self.feed = Feed(dataset.train, config, self.device)
        self.names = [name for name, _ in self.module.named_parameters()]
        self.masks = self._placed(self.processes.from_first(lambda: {name: mask.cpu() for name, mask in masks.items()}))
        self.objective = loss.to(self.device).train() if isinstance(loss, Objective) else Objective()
        self.optimizer = make_optimizer(self.module, self.objective, config)
        self.prefixes = {"": self.module, "objective_": self.objective}
        self.outputs = TrainingOutputs(self.module, images_BCHW, len(dataset.classes))
        self.trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.label_loss = label_loss(config, dataset) if getattr(config, "labels", True) else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.step_loss: StepLoss = self._loss
        if self.processes.several:
            self.step_loss = replicated(
                self.module, self.objective, self._loss_of_part, synchronise=config.sync_batch_norm
            )
        self.average = {name: tensor.clone() for name, tensor in self._state()} if config.averaging else {}
        self.batch_size, self.steps = self.feed.batch_size, self.feed.steps
        self.check_every = 1 if self.device.type == "cpu" else 20
        self.epoch = self.step = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.own_sum = torch.zeros_like(self.loss_sum)  # of this process, since the last check
        self.images_per_s = 0.0
        self.curve: list[dict[str, float]] = []
        self.begun: dict[str, int] = {}  # number of epochs of a run, as text -> the epoch at which it began
        with torch.no_grad():
            self._apply_masks()

    def train_epoch(self, due: Callable[[], bool], save: Callable[[State], None]) -> None:
        """Train from the current position to the end of the epoch and add a point to the curve.

        Args:
            due: called after every step; whether to save a state within the epoch.
            save: saves it.
        """
        started, first, several = time.monotonic(), self.step, self.processes.several
        self.module.train()
        try:
            for batch in self.feed.batches(self.epoch, self.step):
                (self.own_sum if several else self.loss_sum).add_(self.train_step(*batch))
                self.step += 1
                checked = self.step % self.check_every == 0 or self.step == self.steps
                if checked:
                    self._check_loss()
                if self.step < self.steps and (checked or not several) and due():
                    save(self.state())
                elif self.step == self.steps:
                    look(self, batch)
        except (ShardError, StoreError, PeerError):
            self._collect_loss()
            save(self.state())  # so that the run goes on here when the images are back
            raise
        seconds = time.monotonic() - started
        self.images_per_s = (self.steps - first) * self.batch_size / seconds if seconds else 0.0
        self._end_epoch()

    def train_step(self, index_B: Tensor, images_u8: Tensor, labels_B: Tensor) -> Tensor:
        """Train one step and return its loss, a scalar on the device.

        Args:
            index_B: which training images they are, on the CPU.
            images_u8: augmented, uint8 [B, C, H, W] on the device.
            labels_B: on the device.
        """
        names, lead = self.config.augmentations, self.feed.lead
        images_BCHW, labels_B = mix(self.dataset.normalise(images_u8), labels_B, names, len(self.dataset.classes))
        index_B, images_BCHW, labels_B = index_B[lead:], images_BCHW[lead:], labels_B[lead:]
        if self.processes.several:  # dropout draws other numbers in each
            step_generator(self.config.seed, self.epoch, self.step, self.processes.rank, globally=True)
        images_BCHW = images_BCHW.contiguous(memory_format=self.memory_format)
        position = self.epoch + self.step / self.steps  # in epochs
        self.objective.begin(index_B, position / self.config.horizon)
        rate = learning_rate(self.config, position)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        autocast = torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32)
        with autocast, recomputed(self.blocks, self._again):
            loss = self.step_loss(images_BCHW, labels_B)
        self.scaler.scale(loss).backward()
        if self.config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self._update_masks()
            self._apply_masks()
            self._update_average()
        return loss.detach()

    def _again(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which blocks are computed again."""
        synchronised = self.processes.several and self.config.sync_batch_norm
        return SynchronisedBatchNorms() if synchronised else contextlib.nullcontext()

    def _loss(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        logits_BK, auxiliary = self.outputs.split(self.forward(images_BCHW))
        loss = self.loss(logits_BK, labels_B, images_BCHW)
        if auxiliary and self.label_loss:
            losses = [self.label_loss(each_BK, labels_B, images_BCHW) for each_BK in auxiliary]
            loss = loss + self.config.auxiliary_weight * torch.stack(losses).sum()
        return loss

    def _loss_of_part(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return the loss of this process's images, of which the mean over the processes is that of the batch."""
        weight = self.processes.count * len(images_BCHW) / self.batch_size
        return weight * self._loss(images_BCHW, labels_B)

    def _collect_loss(self) -> None:
        """Add the losses of all processes to the sum of the epoch."""
        if self.processes.several:
            self.loss_sum += self.processes.sums([float(self.own_sum)])[0] / self.processes.count
            self.own_sum.zero_()

    def _check_loss(self) -> None:
        """Stop a diverged run; on a GPU only every few steps, since reading the loss synchronises."""
        self._collect_loss()
        total = float(self.loss_sum)
        if not math.isfinite(total):
            rate = self.optimizer.param_groups[0]["lr"]
            first = self.epoch == 0 and self.step == 1
            hint = "it is so before anything is learned" if first else "a lower learning_rate may help"
            raise NonFiniteLossError(
                f"the loss must stay finite, but got {total} in epoch {self.epoch + 1} by step {self.step},"
                f" at learning rate {rate:.3g}; {hint}."
            )

    def _placed(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: mask.to(self.device, torch.bool) for name, mask in masks.items()}

    def _update_masks(self) -> None:
        if self.masking is not None:
            done = self.epoch * self.steps + self.step + 1
            masks = self.masking.update(self.module, self.masks, done, done / self.steps)
            self.masks = self.masks if masks is None else self._placed(masks)

    def _apply_masks(self) -> None:
        for name, mask in self.masks.items():
            self.module.get_parameter(name).mul_(mask)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor.detach()) for name, tensor in self.module.state_dict().items())

    def _update_average(self) -> None:
        if not self.average:
            return
        done = self.epoch * self.steps + self.step
        # The average starts at the initial weights; a growing decay lets it forget them.
        decay = min(self.config.averaging, (1 + done) / (10 + done))
        for name, tensor in self._state():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - decay)
            else:
                self.average[name].copy_(tensor)

    def _end_epoch(self) -> None:
        self.epoch += 1
        self._share()
        with self._averaged():
            logits_NK = predict(self.module, self.dataset.validation, self.dataset, device=self.device)
        point = {
            "epoch": float(self.epoch),
            "train_loss": float(self.loss_sum) / self.steps,
            "validation_accuracy": accuracy(logits_NK, self.dataset.validation.labels),
            "learning_rate": learning_rate(self.config, self.epoch - 1 / self.steps),
        }
        self.curve.append(point)
        if point["train_loss"] > DIVERGED * (self.curve[0]["train_loss"] + 1.0):
            LOG.warning(
                f"training diverges: the loss of epoch {self.epoch} is {point['train_loss']:.3g}, after"
                f" {self.curve[0]['train_loss']:.3g} in the first; a lower learning_rate or clip_norm may help"
            )
        self.step = 0
        self.loss_sum.zero_()

    def _share(self) -> None:
        """Take the running statistics of the first process, and its average of them."""
        self.processes.share([*self.module.buffers(), *self.average.values()])

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Use the averaged weights, if any, in the block."""
        if not self.average:
            yield
            return
        current = {name: tensor.clone() for name, tensor in self._state()}
        load_state(self.module, self.average)
        with torch.no_grad():
            self._apply_masks()
        try:
            yield
        finally:
            load_state(self.module, current)

    def state(self) -> State:
        """Return everything that ``restore`` needs to continue from here."""
        tensors = {f"module.{name}": tensor.cpu() for name, tensor in self._state()}
        tensors |= {f"average.{name}": tensor.cpu() for name, tensor in self.average.items()}
        tensors |= {f"mask.{name}": mask.cpu() for name, mask in self.masks.items()}
        tensors |= {f"objective.{name}": tensor.detach().cpu() for name, tensor in self.objective.state_dict().items()}
        tensors |= saved_state(self.optimizer, self.prefixes)
        position = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": float(self.loss_sum),
            "curve": self.curve,
            "begun": self.begun,
            "scaler": self.scaler.state_dict(),
        }
        return State(tensors, position)

    def fits(self, state: State) -> bool:
        """Return whether a saved state has the weights, averages and objective of this run, by name and shape."""
        parts = {"module": dict(self._state()), "average": self.average, "objective": self.objective.state_dict()}
        own = {f"{part}.{name}": tensor.shape for part, tensors in parts.items() for name, tensor in tensors.items()}
        saved = {key: tensor.shape for key, tensor in state.tensors.items() if key.partition(".")[0] in parts}
        return own == saved

    def restore(self, state: State) -> None:
        """Restore a saved state, which fits."""
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        for key, tensor in state.tensors.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = tensor
        load_state(self.module, parts["module"])
        self.average = {name: tensor.to(self.device) for name, tensor in parts["average"].items()}
        self.objective.load_state_dict(parts["objective"])
        self.masks = self._placed(parts["mask"])
        restore_state(self.optimizer, self.prefixes, state.tensors)
        position: Mapping[str, Any] = state.position
        self.epoch, self.step = position["epoch"], position["step"]
        self.loss_sum.fill_(position["loss_sum"])
        self.curve, self.begun = list(position["curve"]), dict(position.get("begun", {}))
        if position["scaler"]:
            self.scaler.load_state_dict(dict(position["scaler"]))

    def finish(self) -> None:
        """Move the network to the CPU, contiguous, in evaluation mode, with the averaged weights if there are any."""
        if self.average:
            load_state(self.module, self.average)
        with torch.no_grad():
            self._apply_masks()
        place_in_format(self.module.to("cpu"), torch.contiguous_format).eval()
        for parameter in self.module.parameters():
            parameter.grad = None
