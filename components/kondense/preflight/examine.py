"""Try a run on a few random images before it begins: every step once, with the code that the run has.

The steps are the real ones, on a batch or two, for one epoch. What they refuse or cannot do, they refuse here after
seconds, instead of after an hour. A figure that depends on the real images, such as an accuracy, is not judged.
"""

import contextlib
import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from kondense.artifacts.equivalence import probes
from kondense.artifacts.failed import reason_of
from kondense.artifacts.model import Model
from kondense.artifacts.separation import separate_attention
from kondense.config import Config
from kondense.data.dataset import Dataset
from kondense.data_prep.config import DataPrepConfig
from kondense.distill.stage import distill
from kondense.errors import InputError, ShortfallError
from kondense.evaluate.exports import export_forms
from kondense.export.onnx import OPSET
from kondense.export.operators import table
from kondense.heap import return_large_blocks, trim, uncollected
from kondense.logging import LOG
from kondense.measuring.accuracy import doubts_on
from kondense.measuring.latency import predict_onnx, takes_pixels
from kondense.networks.allowed import allowing
from kondense.networks.names import weights_of, without_weights
from kondense.preflight.costs import Probe, RunImages, Trial, estimate, forward_seconds
from kondense.preflight.images import Shape, known_images, random_dataset
from kondense.preflight.request import BENT, DOUBTFUL, IMPOSSIBLE, NETWORK, POSSIBLE, UNTRIED, Check, Request, Step
from kondense.preflight.smaller import smaller_shape, times_slower
from kondense.prune.config import PruneConfig
from kondense.prune.methods import METHODS
from kondense.prune.possible import reduction, zeroing
from kondense.prune.stage import prune
from kondense.quantize.stage import quantize
from kondense.recipes import Composed, models_of
from kondense.stages import STAGES
from kondense.train.config import TrainConfig
from kondense.train.stage import train
from kondense.training.device import formats_tried_once
from kondense.training.probe import probed
from kondense.training.settings import TrainingConfig
from kondense.training.trainer import NonFiniteLossError
from kondense.training.transform import Result, recorded
from kondense.usage import resident_bytes

# One epoch over a few images on the processor; a stage has some of these parameters.
QUICK: Mapping[str, Any] = {
    "epochs": 1,
    "max_epochs": 0,
    "warmup_epochs": 0.0,
    "batch_size": 8,
    "steps": 1,
    "device": "cpu",
    "devices": 1,
    "precision": "auto",
    "compile": False,
    "sensitivity": False,
    "trial_epochs": 0,
    "max_validation_drop": 1.0,
    "calibration_images": 16,
    "rounding_steps": 1,
    "rounds": 1,
}
TECHNIQUES: Mapping[str, Callable[..., Any]] = {"prune": prune, "distill": distill, "quantize": quantize}
HUNDREDTHS = 100  # a changed sparsity is rounded down to these


def examine(request: Request) -> Iterator[Check]:
    """Yield what was tried; the last one is refused if the run cannot go on."""
    return_large_blocks()  # of what one check frees, the next one has little use
    data_config, train_config = DataPrepConfig(**request.data_prep), TrainConfig(**request.train)
    with allowing(networks=[train_config.network]), formats_tried_once():
        found = None
        with timed("images") as check:
            found = known_images(data_config)
            if found is None:
                check(state=UNTRIED, note="only the files tell their size; nothing else was tried")
            else:
                shape = "x".join(map(str, found.shape))
                count = f", {found.sizes.train:,} to train on" if found.sizes else ""
                check(note=f"{shape}, {found.classes} classes{count}")
        yield check.made(refused=True)
        if found is None or check.failed:
            return
        dataset = random_dataset(found.shape, found.classes)
        sizes = found.sizes
        decoded_bytes = math.prod(found.shape) * (sizes.train + sizes.validation + sizes.test) if sizes else 0
        estimated = Estimator(RunImages(found.shape, sizes, not data_config.in_shards(decoded_bytes)), dataset)
        warm_up()
        with timed(NETWORK) as check:
            plain = dataclasses.replace(
                train_config, network=without_weights(train_config.network)
            )  # nothing is fetched
            with estimated(check, train_config, {}):
                result = train(None, dataset, quick(plain))
            check.result = with_lineage(train_config, result, dataset)
            what = "is imported" if train_config.import_uri else "trains"
            check(note=f"{train_config.network} {what}: {result.metrics['parameters']:,.0f} parameters")
            for doubt in doubts_on(result.model.module, dataset.validation, dataset):
                check(state=DOUBTFUL, note=f"{check.fields['note']}; {doubt}")
        yield check.made(refused=True)
        if check.result is not None:
            yield from examine_candidates(request, check.result, dataset, estimated)


def check_steps(config: TrainConfig, steps: Sequence[Composed], shape: Shape, classes: int) -> None:
    """Raise InputError unless a network can be trained and go through the steps of a recipe.

    Args:
        config: of the training, or of the import.
        steps: the recipe's.
        shape: of one image, [C, H, W].
        classes: number of classes.
    """
    dataset = random_dataset(shape, classes)
    with timed("train") as check, unnoticed():
        plain = dataclasses.replace(config, network=without_weights(config.network))
        check.result = with_lineage(config, train(None, dataset, quick(plain)), dataset)
    found = check.made(refused=True)
    if check.result is not None:
        found = impossible_step(steps, check.result, dataset) or found
    if found.refused:
        raise InputError(f"{found.name} is impossible: {found.note}")


def impossible_step(steps: Sequence[Composed], teacher: Model, dataset: Dataset) -> Check | None:
    """Return the first step of a recipe that a network cannot take; None if it takes all that can be tried.

    Args:
        steps: the recipe's, which nothing changes.
        teacher: the network.
        dataset: a few images of its shape.
    """
    model: Model | None = teacher
    for composed in steps:
        if model is None:
            return None
        values = composed.config.to_dict()
        step = Step(composed.stage, composed.step, composed.stage, values, asked=True, asked_fields=list(values))
        with unnoticed():
            check = try_step(step, model, teacher, dataset)
        if check.failed:
            return check.made(refused=True)
        model = check.result
    return None


def examine_candidates(request: Request, teacher: Model, dataset: Dataset, estimated: "Estimator") -> Iterator[Check]:
    """Yield what was tried of each candidate's steps and exports, once for those that candidates share."""
    models: dict[str, Model | None] = {}
    exported: set[str] = set()
    small = smaller(teacher, dataset, estimated)
    with timed("export teacher") as check:
        try_export(teacher, dataset, uint8_input=request.uint8_input)
    yield check.made(refused=True)
    for name, steps in request.candidates.items():
        model: Model | None = teacher
        wanted = name in request.asked
        for step in steps:
            if step.name not in models and model is not None:
                check = try_on_small(step, model, teacher, (small, dataset), estimated)
                models[step.name] = check.result
                yield check.made(refused=wanted or step.asked)
            model = models.get(step.name)
        kind = kind_of(steps)
        if model is not None and kind and kind not in exported:
            exported.add(kind)
            for images in (small, dataset):
                with timed(f"export {name}") as check:
                    try_export(model, images, uint8_input=request.uint8_input)
                if not check.failed:
                    break
            yield check.made(refused=wanted)


def smaller(teacher: Model, dataset: Dataset, estimated: "Estimator") -> Dataset:
    """Return random images on which the network does the same at less cost, where there are such; else ``dataset``."""
    shape = smaller_shape(teacher.module, dataset.shape)
    if shape == dataset.shape:
        return dataset
    pixels = (dataset.shape[1] * dataset.shape[2]) / (shape[1] * shape[2])
    estimated.enlarge(times_slower(teacher.module, dataset.shape, shape), pixels)
    return random_dataset(shape, len(dataset.classes))


def try_on_small(
    step: Step, model: Model, teacher: Model, datasets: tuple[Dataset, Dataset], estimated: "Estimator"
) -> "Timed":
    """Try one step on small images, and on those of the real size unless it is plainly possible (see ``try_step``)."""
    small, dataset = datasets
    if small is not dataset:
        with estimated.enlarged():
            check = try_step(step, model, teacher, small, estimated)
        if check.fields["state"] == POSSIBLE and _reachable(step, model, small, dataset):
            return check
    return try_step(step, model, teacher, dataset, estimated)


def _reachable(step: Step, model: Model, small: Dataset, dataset: Dataset) -> bool:
    """Return whether so much of the cost can be removed from a network that sees images of the real size."""
    config = STAGES[step.stage].config_class(**dict(step.config))
    if not isinstance(config, PruneConfig) or METHODS[config.method].kind != "channels":
        return True
    module = copy.deepcopy(model.module)
    separate_attention(module, probes(small.shape))
    return reduction(module, small.shape, config, costs_of=dataset.shape).fraction >= config.sparsity


def try_step(
    step: Step, model: Model, teacher: Model, dataset: Dataset, estimated: "Estimator | None" = None
) -> "Timed":
    """Try one step; ``result`` of what is returned is its model, None if there is none."""
    config = STAGES[step.stage].config_class(**dict(step.config))
    with timed(step.name) as check:
        if step.stage not in TECHNIQUES:
            check(state=UNTRIED, note="it needs the real data")
            return check
        models = {"model": model, **({"teacher": teacher} if teacher is not model else {})}
        watched = functools.partial(estimated, check, config, models) if estimated else contextlib.nullcontext
        try:
            with watched():
                check.result = attempt(step, quick(config), model, teacher, dataset)
        except InputError as error:
            possible = largest_possible(step, config, model, dataset)
            if not possible:
                raise
            bent = dataclasses.replace(config, sparsity=possible)  # type: ignore[call-arg]
            with watched():
                check.result = attempt(step, quick(bent), model, teacher, dataset)
            kind, asked = METHODS[bent.method].kind, step.config["sparsity"]  # type: ignore[attr-defined]
            taken = f"the {step.config['target']} is removed" if kind == "channels" else "the weights is pruned"
            note = f"{possible} of {taken} instead of {asked}: {error}"
            check(state=BENT, note=note, changes={step.step: {"sparsity": possible}})
    return check


def attempt(step: Step, config: Config, model: Model, teacher: Model, dataset: Dataset) -> Model:
    """Run a stage's function on the random images."""
    roles = models_of(step.stage, model, teacher)
    source = roles.pop("model", None)
    result: Result = TECHNIQUES[step.stage](source, dataset, config, teachers=roles)
    return recorded(step.stage, config, result, {"dataset": ""}, dataset)


def with_lineage(config: TrainConfig, result: Result, dataset: Dataset) -> Model:
    """Return a trained or imported network with the lineage of the real one, whose training a step may repeat.

    Args:
        config: of the real training.
        result: of the quick one.
        dataset: the random images.
    """
    if weights_of(config.network):  # no weights were fetched
        result = dataclasses.replace(result, details={**result.details, "imported": config.network})
    real = {name: getattr(config, name) for name in ("epochs", "max_epochs", "import_uri")}
    return recorded("train", dataclasses.replace(quick(config), **real), result, {"dataset": ""}, dataset)


def largest_possible(step: Step, config: Config, model: Model, dataset: Dataset) -> float:
    """Return the sparsity that a default may be lowered to; 0 if it is the user's, or not what hinders the step."""
    if not isinstance(config, PruneConfig) or "sparsity" in step.asked_fields:
        return 0.0
    if METHODS[config.method].kind == "channels":
        module = copy.deepcopy(model.module)
        separate_attention(module, probes(dataset.shape))
        fraction = reduction(module, dataset.shape, config).fraction
    else:
        fraction = zeroing(model.module, config)
    return math.floor(fraction * HUNDREDTHS) / HUNDREDTHS if fraction < config.sparsity else 0.0


def kind_of(steps: Sequence[Step]) -> str:
    """Return what an export depends on besides the network: how the last step quantizes; "" if none does."""
    last = steps[-1] if steps else None
    if last is None or last.stage != "quantize" or (last.step == "pack_weights" and not last.asked):
        return ""  # weights alone change no operator but the one that unpacks them
    return f"{last.config.get('method')} {last.config.get('bits')}"


def try_export(model: Model, dataset: Dataset, *, uint8_input: bool) -> None:
    """Export a model as evaluate does, and run what was exported."""
    images_u8 = dataset.test.images[:2]
    for form in export_forms(model, dataset, arithmetic="auto", uint8_input=uint8_input).values():
        images = images_u8 if takes_pixels(form.session) else dataset.normalise(images_u8)
        predict_onnx(form.session, images.numpy(), batch_size=len(images_u8))


def warm_up() -> None:
    """Train a tiny network: what torch loads for the first training, 2 s and more, is no part of what a step takes.

    The server that forks a run's steps has loaded it, and the exporter's table.
    """
    with uncollected(kept=True), unnoticed():
        table(OPSET)
        train(None, random_dataset((1, 8, 8), 2), quick(TrainConfig(network="lenet300")))


def quick(config: Config) -> Any:
    """Return a stage's Config with the parameters that make it take a second."""
    known = config.to_dict()
    return dataclasses.replace(config, **{name: value for name, value in QUICK.items() if name in known})


@contextlib.contextmanager
def unnoticed() -> Iterator[None]:
    """Log nothing in the block, where epochs of the real training are read, and leave the random numbers alone."""
    before = LOG.disabled
    LOG.disabled = True
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        LOG.disabled = before


class Timed:
    """One check in progress; call it to set state, note and changes."""

    def __init__(self, name: str) -> None:
        self.name, self.seconds = name, 0.0
        self.fields: dict[str, Any] = {"state": POSSIBLE}
        self.result: Model | None = None

    def __call__(self, **fields: Any) -> None:
        """Set fields of the check."""
        self.fields |= fields

    @property
    def failed(self) -> bool:
        """Whether what was tried is impossible."""
        return self.fields["state"] == IMPOSSIBLE

    def made(self, *, refused: bool) -> Check:
        """Return the check; ``refused``: whether the run must end if it is impossible."""
        return Check(self.name, seconds=self.seconds, refused=refused and self.failed, **self.fields)


class Estimator:
    """Estimates what steps take from the trial of each.

    Args:
        images: the run's.
        few: the random images of the trials.
    """

    def __init__(self, images: RunImages, few: Dataset) -> None:
        self.images, self.few = images, few
        self.shared_bytes = 0 if torch.cuda.is_available() else resident_bytes()
        self.factors = (1.0, 1.0)  # of small images: seconds, bytes
        self.scale = (1.0, 1.0)  # what a trial's figures are multiplied by

    def enlarge(self, seconds: float, saved: float) -> None:
        """Set how many times a training step on images of the real size takes as much as one on small ones."""
        self.factors = (seconds, saved)

    @contextlib.contextmanager
    def enlarged(self) -> Iterator[None]:
        """Take the trials in the block for those of small images."""
        self.scale = self.factors
        try:
            yield
        finally:
            self.scale = (1.0, 1.0)

    @contextlib.contextmanager
    def __call__(self, check: Timed, config: Config, models: Mapping[str, Model]) -> Iterator[None]:
        """Measure the trial of a step in the block, and note in its check what the real one takes.

        Args:
            check: of the step.
            config: the real one.
            models: those that the step loads, by role.
        """
        probe = Probe(config.batch_size if isinstance(config, TrainingConfig) else 1)
        began, worked = time.monotonic(), time.process_time()
        with probed(probe):
            yield
        passed = time.monotonic() - began
        busy = max(1.0, passed / max(time.process_time() - worked, 1e-6))
        idle = not probe.costs and "model" in models
        forward_s = forward_seconds(models["model"].module, self.few, torch.device("cpu")) if idle else 0.0
        trim(kept=True)
        process_bytes = resident_bytes()  # with all that torch loads and sets up at its first training step
        costs = [cost.scaled(*self.scale) for cost in probe.costs]
        trial = Trial(costs, passed - probe.spent_s, forward_s, process_bytes, self.shared_bytes, busy)
        found = estimate(config, self.images, trial, models)
        check(run_s=found.seconds, memory_bytes=found.memory_bytes)


@contextlib.contextmanager
def timed(name: str) -> Iterator[Timed]:
    """Measure the block; its error is what is impossible."""
    check, began = Timed(name), time.monotonic()
    try:
        yield check
    except (ShortfallError, NonFiniteLossError) as error:
        check(state=UNTRIED, note=f"on random images: {error}")  # says nothing about the real ones
    except OSError as error:  # a store that is not reached from here, a disk: says nothing about the network
        check(state=UNTRIED, note=reason_of(error))
    except Exception as error:  # whatever the user's network raises
        check(state=IMPOSSIBLE, note=reason_of(error))
    finally:
        trim()
        check.seconds = time.monotonic() - began
