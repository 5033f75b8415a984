import pytest
import torch
import torch.nn.functional as F
from kondense.artifacts.model import Model, load_model, save_model
from kondense.distill.config import DistillConfig
from kondense.distill.inheritance import inherit, is_narrower
from kondense.distill.student import make_student, takes_width
from kondense.errors import InputError
from kondense.networks.allowed import allowing
from kondense.networks.build import NetworkSpec, build
from torch import nn

from tests.support.toy_training import toy_dataset


def network(name, **arguments):
    return build(NetworkSpec(name, {"classes": 4, "channels": 1, "image_size": 16} | arguments), seed=2)


def test_the_channels_that_weigh_most_are_taken_with_what_reads_them():
    def chain(hidden):
        return nn.Sequential(nn.Flatten(), nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    teacher, student = chain(4), chain(2)
    with torch.no_grad():
        # Sums of the outputs: 1, 4, 2, 3 (mean 2.5); of the inputs: 2, 1, 9, 4 (mean 4); scores 0.9, 1.85, 3.05, 2.2.
        teacher[1].weight.copy_(torch.diag(torch.tensor([1.0, -4.0, 2.0, 3.0])))
        teacher[1].bias.copy_(torch.tensor([10.0, 11.0, 12.0, 13.0]))
        teacher[3].weight.copy_(torch.tensor([[1.0, 0.5, 3.0, -2.0], [1.0, 0.5, 3.0, 1.0], [0.0, 0.0, -3.0, 1.0]]))
    inherit(student, teacher, (1, 2, 2))
    assert torch.equal(student[1].weight, teacher[1].weight[[2, 3]])
    assert torch.equal(student[1].bias, torch.tensor([12.0, 13.0]))
    assert torch.equal(student[3].weight, teacher[3].weight[:, [2, 3]])
    assert torch.equal(student[3].bias, teacher[3].bias)


@pytest.mark.parametrize("name", ["lenet5", "lenet300", "lenet_cifar", "resnet8", "resnet20", "mobilenet_small"])
def test_when_the_other_channels_are_dead_the_student_is_the_teacher(name):
    """A narrow network is embedded, channel by channel at random places, in a wide one; it must come out again."""
    narrow, wide = network(name, width=0.5).eval(), network(name).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.zero_()
        embed(narrow, wide, generator)
    student = network(name, width=0.5).eval()
    assert is_narrower(student, wide)
    inherit(student, wide, (1, 16, 16))
    images = torch.randn(5, 1, 16, 16, generator=generator)
    torch.testing.assert_close(student(images), wide(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(student(images), narrow(images), rtol=1e-4, atol=1e-5)
    assert not student(images).allclose(torch.zeros(()))


def embed(narrow, wide, generator):
    """Copy ``narrow`` into the first channels of every layer of ``wide``, norms and flattened maps included."""
    for name, small in narrow.named_modules():
        large = wide.get_submodule(name)
        for key, tensor in [*small.named_parameters(recurse=False), *small.named_buffers(recurse=False)]:
            target = getattr(large, key)
            if key == "num_batches_tracked":
                continue
            if key == "running_var":
                target.fill_(1.0)
            target[tuple(slice(size) for size in tensor.shape)] = tensor


def test_a_student_that_is_no_narrower_teacher_is_told_from_one_that_is():
    wide = network("resnet8")
    assert is_narrower(network("resnet8", width=0.5), wide)
    assert not is_narrower(network("resnet8"), wide)  # nothing is smaller
    assert not is_narrower(network("resnet8", width=2.0), wide)
    assert not is_narrower(network("resnet20", width=0.5), wide)
    assert not is_narrower(network("lenet5"), wide)


@pytest.mark.parametrize(
    ("student", "rule"),
    [
        ("lenet5", r"'conv1.weight' is \[20, 1, 5, 5\] and the teacher has \[16, 1, 3, 3\]; use start=random"),
        ("resnet20", r"'blocks.3.conv1.weight' is \[32, 16, 3, 3\] and the teacher has None; use start=random"),
    ],
)
def test_other_networks_cannot_start_from_the_teacher(student, rule):
    with pytest.raises(ValueError, match=rule):
        inherit(network(student), network("resnet8"), (1, 16, 16))


def test_a_teacher_that_cannot_be_traced_is_refused_with_the_way_out():
    class Unsure(nn.Module):
        def __init__(self, hidden):
            super().__init__()
            self.first, self.last = nn.Linear(4, hidden), nn.Linear(hidden, 2)

        def forward(self, images):
            raise RuntimeError("shapes do not agree")

    with pytest.raises(ValueError, match="can be traced, but .*shapes do not agree; use start=random"):
        inherit(Unsure(2), Unsure(4), (1, 2, 2))


def test_the_teacher_is_left_as_it_is():
    teacher = network("resnet8").eval()
    teacher.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    inherit(network("resnet8", width=0.5), teacher, (1, 16, 16))
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_a_student_of_torchvision_takes_whole_channels_of_its_teacher():
    arguments = {"classes": 3, "channels": 3, "image_size": 32}
    teacher, student = (
        build(NetworkSpec("torchvision:mobilenet_v2", arguments | width)).eval() for width in ({}, {"width": 0.5})
    )
    inherit(student, teacher, (3, 32, 32))
    mine, theirs = (each.features[0][0].weight.flatten(1) for each in (student, teacher))
    assert len(mine) == len(theirs) // 2
    assert all(any(torch.equal(channel, other) for other in theirs) for channel in mine)


class Grouped(nn.Module):
    """A convolution in groups, or one with several outputs of each input (``groups`` 0)."""

    def __init__(self, width, groups):
        super().__init__()
        narrow, wide = int(16 * width), int(32 * width)
        self.stem, self.fc = nn.Conv2d(1, narrow, 3), nn.Linear(wide, 10)
        self.grouped = nn.Conv2d(narrow, wide, 3, groups=groups or narrow)

    def forward(self, images_NCHW):
        return self.fc(F.relu(self.grouped(F.relu(self.stem(images_NCHW)))).mean((2, 3)))


@pytest.mark.parametrize("groups", [4, 0])
def test_a_student_of_grouped_convolutions_takes_whole_channels(groups):
    teacher, student = Grouped(1.0, groups).eval(), Grouped(0.5, groups)
    inherit(student, teacher, (1, 8, 8))
    mine, theirs = student.stem.weight.flatten(1), teacher.stem.weight.flatten(1)
    assert all(any(torch.equal(channel, other) for other in theirs) for channel in mine)


class Plain(nn.Module):
    """A network whose factory has no width."""

    def __init__(self, classes: int, channels: int, image_size: int):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(channels, 16, 3), nn.BatchNorm2d(16)
        self.deep, self.fc = nn.Conv2d(16, 32, 3, groups=16), nn.Linear(32, classes)

    def forward(self, images_NCHW):
        return self.fc(F.relu(self.deep(F.relu(self.norm(self.stem(images_NCHW))))).mean((2, 3)))


def plain_teacher():
    dataset = toy_dataset()
    arguments = {"classes": len(dataset.classes), "channels": dataset.shape[0], "image_size": dataset.shape[1]}
    return build_model(f"{__name__}:Plain", arguments), dataset


def build_model(name, arguments):
    spec = NetworkSpec(name, arguments)
    return Model(build(spec, seed=3).eval(), spec)


@pytest.mark.parametrize("start", ["auto", "teacher", "random"])
def test_without_a_width_the_student_is_the_network_without_some_channels(tmp_path, start):
    teacher, dataset = plain_teacher()
    student, origin = make_student(DistillConfig(width=0.5, start=start), teacher, dataset)
    assert not takes_width(teacher.network.name)
    assert origin == ("from random weights" if start == "random" else "from the teacher's channels")
    assert [tuple(weight.shape[:2]) for weight in (student.module.stem.weight, student.module.deep.weight)] == [
        (8, 1),
        (16, 1),
    ]
    save_model(tmp_path / "student", student)
    images = torch.randn(2, *dataset.shape)
    with allowing(networks=[teacher.network.name]):
        assert torch.equal(load_model(tmp_path / "student").module(images), student.module.eval()(images))


def test_without_a_width_there_is_none_above_one():
    teacher, dataset = plain_teacher()
    with pytest.raises(InputError, match="at most 1 for .*Plain, whose factory takes no width, but got 2"):
        make_student(DistillConfig(width=2.0), teacher, dataset)
