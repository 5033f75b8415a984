"""Which network the student is, and with which weights it starts."""

from torch import nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.distill.config import DistillConfig
from kondense.distill.inheritance import inherit, is_narrower
from kondense.errors import InputError
from kondense.measuring.size import count_parameters
from kondense.networks.build import NetworkSpec, build, check_images
from kondense.training.transform import check_fits

WIDTH = DistillConfig().width


def make_student(config: DistillConfig, teacher: Model, dataset: Dataset) -> tuple[Model, bool]:
    """Return a new student and whether it starts from the teacher's channels.

    Raises:
        ValueError: the network cannot be built, does not take the images, or cannot start from the teacher.
    """
    spec = student_spec(config, teacher, dataset)
    module = build(spec, seed=config.seed)
    check_images(f"network {spec.name!r}", module, dataset.shape, len(dataset.classes))
    inherits = config.start == "teacher" or (config.start == "auto" and is_narrower(module, teacher.module))
    if inherits:
        inherit(module, teacher.module, dataset.shape)
    return Model(module, spec), inherits


def student_spec(config: DistillConfig, teacher: Model, dataset: Dataset) -> NetworkSpec:
    """Return how to build the student: the network asked for, or the teacher's, at the width asked for."""
    channels, size, _ = dataset.shape
    arguments = {"classes": len(dataset.classes), "channels": channels, "image_size": size}
    width = config.width
    if not config.student_network or config.student_network == teacher.network.name:
        arguments = dict(teacher.network.arguments)
        width *= arguments.pop("width", 1.0)
    if width != 1.0:
        arguments["width"] = width
    return NetworkSpec(config.student_network or teacher.network.name, arguments)


def check_given(config: DistillConfig, student: Model, dataset: Dataset) -> None:
    """Raise ValueError unless the model can be the student as it stands and nothing asks for another one."""
    if student.quantized or student.activations:
        raise InputError("a model must be distilled before it is quantized, but the student is quantized.")
    check_fits("student", student, dataset)
    if config.student_network and config.student_network != student.network.name:
        raise InputError(
            f"student_network must be left out when the student is given as a model, which is a"
            f" {student.network.name}, but got {config.student_network!r}."
        )
    if config.width != WIDTH:
        raise InputError(f"width must be left out when the student is given as a model, but got {config.width}.")
    if config.start != "auto":
        raise InputError(
            f"start must be auto when the student is given as a model, whose weights it has, but got {config.start!r}."
        )


def size_warning(student: nn.Module, teacher: nn.Module) -> str:
    """Return what to warn of when the student has more parameters than the teacher; nothing is compressed then."""
    mine, theirs = count_parameters(student), count_parameters(teacher)
    if mine <= theirs:
        return ""
    return f"the student is larger than the teacher: {mine} parameters against {theirs}."
