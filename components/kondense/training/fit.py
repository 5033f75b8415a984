"""The training loop.

Shapes: B images in a batch, C channels, H height, W width, K classes.

A run is a function of the network's weights, the data and the config: (seed, epoch, step) seeds the randomness of each
step, and learning rates depend on the absolute epoch. So a run that is killed anywhere and restarted ends with the
weights of an uninterrupted one, bit for bit on one machine with one number of threads.
"""

import contextlib
import contextvars
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.logging import LOG
from kondense.processes import current
from kondense.training.checkpoint import Checkpoint, State
from kondense.training.losses import Loss, label_loss
from kondense.training.masking import Masking
from kondense.training.settings import TrainingConfig
from kondense.training.trainer import Trainer

# Called with every epoch's point in this context.
_listener: contextvars.ContextVar[Callable[[Mapping[str, float]], None] | None] = contextvars.ContextVar(
    "listener", default=None
)


def fit(
    module: nn.Module,
    dataset: Dataset,
    config: TrainingConfig,
    *,
    loss: Loss | None = None,
    masks: Mapping[str, Tensor] | None = None,
    masking: Masking | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train ``module`` in place on the training split; it ends on the CPU, contiguous, in evaluation mode.

    Args:
        module: the network; logits [B, K] from images [B, C, H, W].
        dataset: training uses its training split; accuracy is measured on its validation split after each epoch.
        config: the training parameters.
        loss: maps (logits [B, K], labels [B], normalised images [B, C, H, W]) to a scalar; cross-entropy
            with the config's label smoothing by default.
        masks: by parameter name, boolean, True where a weight is kept; the others are zero after every step.
        masking: updates the masks during the run.
        checkpoint: where to resume from and to save to; on SIGTERM the run saves and exits with status 143.
        on_epoch: called with each new point of the curve; logs it by default.

    Returns:
        One point per epoch: ``epoch``, ``train_loss``, ``validation_accuracy``, ``learning_rate``.

    Raises:
        NonFiniteLossError: with epoch, step and learning rate.
    """
    trainer = Trainer(module, dataset, config, masks or {}, loss or label_loss(config, dataset), masking=masking)
    processes = current()
    state = processes.from_first(lambda: checkpoint.load(epochs=config.epochs)) if checkpoint else None
    if state and not trainer.fits(state):
        LOG.warning("a checkpoint has the tensors of another network; it is ignored and that part is trained again")
    elif state:
        trainer.restore(state)
        LOG.info(f"resumed at epoch {trainer.epoch}/{config.epochs} step {trainer.step} from a checkpoint")
    report = on_epoch or (lambda point: log_epoch(point, config.epochs, trainer.images_per_s))
    # What this run has trained before it was stopped, but not the epochs of one with fewer that it continues.
    first = trainer.begun.setdefault(str(config.epochs), trainer.epoch)
    for point in trainer.curve[first:] if on_epoch is None else ():
        log_epoch(point, config.epochs)
    with _sigterm(active=checkpoint is not None) as terminated, _isolated_randomness():
        keeper = Keeper(checkpoint, terminated)
        while trainer.epoch < config.epochs:
            trainer.train_epoch(keeper.due, keeper.save)
            report(trainer.curve[-1])
            if listener := _listener.get():
                listener(trainer.curve[-1])
            keeper.agree()
            keeper.save(trainer.state(), last=trainer.epoch == config.epochs)
    trainer.finish()
    return trainer.curve


@contextlib.contextmanager
def epochs_reported_to(listener: Callable[[Mapping[str, float]], None]) -> Iterator[None]:
    """Call ``listener`` with each new point of every training's curve in the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@dataclasses.dataclass
class Keeper:
    """Saves a run's states: one per epoch, one per ``checkpoint.seconds`` within, one on SIGTERM."""

    checkpoint: Checkpoint | None
    terminated: threading.Event
    previous: str = ""
    saved_at: float = dataclasses.field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Return whether to save a state within the epoch now."""
        return self.checkpoint is not None and self.agree()

    def agree(self) -> bool:
        """Return whether a state is to be saved in any process; a SIGTERM to one is one to all."""
        late = self.checkpoint is not None and time.monotonic() - self.saved_at > self.checkpoint.seconds
        late, terminated = current().any(late, self.terminated.is_set())
        if terminated:
            self.terminated.set()
        return late or terminated

    def save(self, state: State, *, last: bool = False) -> None:
        """Save ``state`` in the first process, delete the previous one, and exit after a SIGTERM.

        The last state of a run is never deleted: a promoted trial continues it.
        """
        if self.checkpoint is not None and current().first:
            key = self.checkpoint.save(state)
            if self.previous and self.previous != key:
                self.checkpoint.discard(self.previous)
            self.previous = "" if last else key
        self.saved_at = time.monotonic()
        if self.terminated.is_set():
            raise SystemExit(128 + signal.SIGTERM)


def log_epoch(point: Mapping[str, float], epochs: int, images_per_s: float | None = None) -> None:
    """Log one point of the curve as the line that progress bars parse; without a rate, it was trained before."""
    names = ("train_loss", "validation_accuracy", "learning_rate")
    values = " ".join(f"{name}={point[name]:.6g}" for name in names)
    rate = "" if images_per_s is None else f" images_per_s={images_per_s:.0f}"
    LOG.info(f"epoch {point['epoch']:.0f}/{epochs} {values}{rate}")


@contextlib.contextmanager
def _isolated_randomness() -> Iterator[None]:
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        yield


@contextlib.contextmanager
def _sigterm(*, active: bool) -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets, if ``active`` and in the main thread; restore the handler afterwards."""
    terminated = threading.Event()
    if not active or threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, previous)
