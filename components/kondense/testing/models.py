"""The conformance suites of scores and quantizers, on small networks and images."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model, load_model, model_identity, save_model
from kondense.data.dataset import Dataset, Split
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import Quantizer
from kondense.quantize.stage import quantize
from kondense.scratch import scratch_directory

CLASSES, SIZE = 3, 16
NETWORKS = ("lenet5", "resnet8", "mobilenet_small")  # linear layers, shortcuts, depthwise convolutions
TRAINING: dict[str, Any] = {"epochs": 1, "batch_size": 32, "device": "cpu"}


def small_dataset(train: int = 96) -> Dataset:
    """Return grey images of 16 x 16 pixels, whose class is the brightest of three stripes."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        labels = torch.arange(count) % CLASSES
        images = torch.randint(0, 120, (count, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[:, :, 5 * label : 5 * label + 5] += 90
        return Split(images, labels)

    splits: dict[str, Any] = {"train": split(train), "validation": split(30), "test": split(30)}
    names = tuple(f"stripe {label}" for label in range(CLASSES))
    return Dataset("stripes", names, (0.35,), (0.17,), seed=0, source="kondense.testing", **splits)


def small_model(network: str) -> Model:
    """Return an untrained network, the same for every call."""
    spec = NetworkSpec(network, {"classes": CLASSES, "channels": 1, "image_size": SIZE})
    return Model(build(spec, seed=0).eval(), spec)


def check_score(score: Callable[..., Any]) -> None:
    """Check that a score prunes networks of several kinds.

    Args:
        score: a function `(module, groups)` or `(module, weights)`, with or without a third parameter `context`.

    Raises:
        AssertionError: a rule is broken; the text names it.
        InputError: the score returns values of another form.
    """
    dataset = small_dataset()
    config = PruneConfig(**TRAINING, sparsity=0.4, round_to=1, steps=1)

    @functools.wraps(score)
    def watched(module: nn.Module, *arguments: Any, **context: Any) -> Any:
        with _unchanged(module, "a score"):
            return score(module, *arguments, **context)

    for network in NETWORKS:
        model = small_model(network)
        first, second = (prune(model, dataset, config, method=watched) for _ in range(2))
        _check_result("a score", model, first.model, second.model, dataset)
        assert first.metrics["sparsity"] > 0, f"a score must lead to pruning, but {network} keeps all its weights"


def check_quantizer(quantizer: Quantizer) -> None:
    """Check that a quantizer makes models that can be stored and loaded.

    Args:
        quantizer: a function `(model, context)` that returns the quantized model.

    Raises:
        AssertionError: a rule is broken; the text names it.
        InputError: a model or a parameter breaks a rule.
    """
    dataset = small_dataset()

    @functools.wraps(quantizer)
    def watched(model: Model, context: Any) -> Model:
        with _unchanged(model.module, "a quantizer"):
            return quantizer(model, context)

    for network in NETWORKS:
        model = small_model(network)
        first, second = (quantize(model, dataset, QuantizeConfig(**TRAINING), method=watched) for _ in range(2))
        _check_result("a quantizer", model, first.model, second.model, dataset)
        assert first.model.quantized, f"a quantizer must return a model with quantized weights, but {network} has none"


@contextlib.contextmanager
def _unchanged(module: nn.Module, role: str) -> Iterator[None]:
    """Raise an AssertionError if the block changes the network, its mode or the global random state."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    training, random = module.training, torch.get_rng_state()
    yield
    after = module.state_dict()
    changed = [name for name, value in before.items() if name not in after or not torch.equal(value, after[name])]
    assert not changed, f"{role} must not change the network, but changed {', '.join(changed)}"
    assert module.training == training, f"{role} must not change the mode of the network"
    assert torch.equal(random, torch.get_rng_state()), f"{role} must not draw from torch's global random state"


def _check_result(role: str, model: Model, first: Model, second: Model, dataset: Dataset) -> None:
    """Check that two results are equal, and that a stored one computes the same."""
    untouched = model_identity(small_model(model.network.name)) == model_identity(model)
    assert untouched, f"{role} must not change the model that it receives"
    assert model_identity(first) == model_identity(second), f"{role} must return the same result for the same input"
    logits = _logits(first, dataset)
    assert logits.isfinite().all(), f"{role} must lead to finite logits"
    with scratch_directory("testing") as scratch:
        directory = scratch / "model"
        save_model(directory, first)
        stored = _logits(load_model(directory), dataset)
    assert torch.equal(stored, logits), f"{role} must return a model that computes the same after it is loaded"


def _logits(model: Model, dataset: Dataset) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.module.eval()(dataset.normalise(dataset.test.images[:]))
    return logits
