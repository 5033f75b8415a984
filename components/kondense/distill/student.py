"""The student's network and its initial weights."""

import dataclasses
import inspect
from typing import Any

from torch import nn

from kondense.artifacts.equivalence import probes
from kondense.artifacts.model import Model
from kondense.artifacts.separation import separate_attention
from kondense.data.dataset import Dataset
from kondense.distill.config import DistillConfig
from kondense.distill.inheritance import inherit, is_narrower, narrow
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.measuring.size import count_parameters
from kondense.networks.build import NetworkSpec, build, factory
from kondense.networks.names import network_of
from kondense.training.transform import check_fits, check_float, copied

WIDTH = DistillConfig().width


def make_student(config: DistillConfig, teacher: Model, dataset: Dataset) -> tuple[Model, str]:
    """Return a new student and the origin of its weights, in words.

    Raises:
        InputError: the network cannot be built, does not take the images, or cannot start from the teacher.
    """
    name = config.student_network or teacher.network.name
    if config.width != 1.0 and not takes_width(name):
        return _narrowed(config, teacher, dataset)
    spec = student_spec(config, teacher, dataset)
    student = Model(build(spec, seed=config.seed), spec)
    check_fits("student", student, dataset)
    if config.start == "teacher" or (config.start == "auto" and is_narrower(student.module, teacher.module)):
        inherit(student.module, teacher.module, dataset.shape)
        return student, "from the teacher's channels"
    return student, "from random weights"


def takes_width(name: str) -> bool:
    """Return whether the factory of a network has a parameter ``width``."""
    library, _, rest = network_of(name).partition(":")
    if library in ("torchvision", "timm"):
        return library == "torchvision" and rest.startswith("mobilenet")
    parameters = inspect.signature(factory(network_of(name))).parameters.values()
    return any(each.name == "width" or each.kind is each.VAR_KEYWORD for each in parameters)


def _narrowed(config: DistillConfig, teacher: Model, dataset: Dataset) -> tuple[Model, str]:
    """Return a student whose factory has no width: the network without the channels that weigh least."""
    own = config.student_network in ("", teacher.network.name)
    name = config.student_network or teacher.network.name
    if config.width > 1.0:
        raise InputError(f"width must be at most 1 for {name}, whose factory takes no width, but got {config.width}.")
    if config.start == "teacher" and not own:
        raise InputError(f"start=teacher needs the teacher's network, {teacher.network.name}, but got {name}.")
    if own and config.start != "random":
        student = dataclasses.replace(copied(teacher), masked=(), lineage=())
        start = "from the teacher's channels"
    else:
        spec = teacher.network if own else student_spec(dataclasses.replace(config, width=1.0), teacher, dataset)
        student, start = Model(build(spec, seed=config.seed), spec), "from random weights"
    check_fits("student", student, dataset)
    separate_attention(student.module, probes(dataset.shape))  # heads of projections that are layers can be removed
    whole = narrow(student.module, dataset.shape, config.width)
    for layer, reason in whole.items():
        LOG.info(f"{layer} keeps all of its outputs: {reason}")
    return student, start


def student_spec(config: DistillConfig, teacher: Model, dataset: Dataset) -> NetworkSpec:
    """Return how to build the student: the configured network, or the teacher's, at the configured width."""
    channels, size, _ = dataset.shape
    arguments: dict[str, Any] = {"classes": len(dataset.classes), "channels": channels, "image_size": size}
    width = config.width
    if not config.student_network or config.student_network == teacher.network.name:
        arguments = dict(teacher.network.arguments)
        width = width * arguments.pop("width", 1.0)
    if width != 1.0:
        arguments["width"] = width
    return NetworkSpec(config.student_network or teacher.network.name, arguments)


def check_student(config: DistillConfig, student: Model) -> None:
    """Raise InputError if a model cannot be the student, or the config asks for another student."""
    check_float("distill", student)
    allowed = {"student_network": ("", student.network.name), "width": (WIDTH,), "start": ("auto",)}
    for name, values in allowed.items():
        value = getattr(config, name)
        if value not in values:
            choices = " or ".join(map(repr, values))
            raise InputError(f"{name} must be {choices} if a model is given as the student, but got {value!r}.")


def size_warning(student: nn.Module, teacher: nn.Module) -> str:
    """Return a warning if the student has more parameters than the teacher, or an empty string."""
    counts = count_parameters(student), count_parameters(teacher)
    if counts[0] <= counts[1]:
        return ""
    return f"the student is larger than the teacher: {counts[0]} parameters against {counts[1]}."
