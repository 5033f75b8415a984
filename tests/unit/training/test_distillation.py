import math

import pytest
import torch
import torch.nn.functional as F
from kondense.training.losses import SoftLabelLoss, soft_cross_entropy
from scipy.special import softmax
from torch import nn

from tests.support.toy_training import toy_dataset

LOGITS = torch.tensor([[1.0, 2.0, -1.0], [0.5, -0.5, 3.0]])
TEACHER = torch.tensor([[0.0, 4.0, 1.0], [2.0, 0.0, 2.5]])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_is_the_divergence_of_softened_distributions(temperature):
    student, teacher = (softmax(tensor.double().numpy() / temperature, axis=1) for tensor in (LOGITS, TEACHER))
    expected = (
        temperature**2
        * sum(
            p * math.log(p / q)
            for row_p, row_q in zip(teacher, student, strict=True)
            for p, q in zip(row_p, row_q, strict=True)
        )
        / len(LOGITS)
    )
    assert float(soft_cross_entropy(LOGITS, TEACHER, temperature)) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_that_of_the_cross_entropy_and_keeps_its_size():
    for temperature in (1.0, 3.0):
        student = LOGITS.clone().requires_grad_()
        soft_cross_entropy(student, TEACHER, temperature).backward()
        # Hinton et al. 2015, equation 2, times T^2: T (q - p) / B
        difference = (student.detach() / temperature).softmax(1) - (TEACHER / temperature).softmax(1)
        torch.testing.assert_close(student.grad, temperature * difference / 2)


def test_the_best_student_is_the_teacher():
    assert float(soft_cross_entropy(TEACHER, TEACHER, 2.0)) == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_reaches_the_teacher_and_its_copy_is_in_evaluation_mode():
    teacher = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3)).train()
    student = nn.Linear(4, 3)
    images, labels = torch.ones(2, 1, 2, 2), torch.tensor([0, 2])
    loss = SoftLabelLoss(teacher, temperature=2.0, alpha=0.5)
    first, second = (loss(student(images.flatten(1)), labels, images) for _ in range(2))
    assert torch.equal(first, second)
    first.backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(weight.grad is not None for weight in student.parameters())


def test_alpha_mixes_both_parts():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        teacher[1].weight.copy_(torch.eye(3))
    images, labels = TEACHER.reshape(2, 1, 1, 3), torch.tensor([1, 2])
    hard = F.cross_entropy(LOGITS, labels, label_smoothing=0.1)
    soft = soft_cross_entropy(LOGITS, TEACHER, 4.0)
    for alpha in (0.0, 0.3, 1.0):
        loss = SoftLabelLoss(teacher, temperature=4.0, alpha=alpha, label_smoothing=0.1)
        torch.testing.assert_close(loss(LOGITS, labels, images), (1 - alpha) * hard + alpha * soft)


class Counting(nn.Module):
    """Counts the images that it and its copies have seen."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(DATASET.shape[0] * DATASET.shape[1] * DATASET.shape[2], len(DATASET.classes))
        self.counter = Counter()

    def forward(self, images):
        self.counter.images += len(images)
        return self.linear(images.flatten(1))


class Counter:
    images = 0

    def __deepcopy__(self, memo):
        return self


DATASET = toy_dataset()


def batch(index):
    images = DATASET.normalise(DATASET.train.images[index])
    logits = torch.randn(len(index), len(DATASET.classes), generator=torch.Generator().manual_seed(1))
    return logits, DATASET.train.labels[index], images


def test_the_teacher_of_unchanged_images_is_asked_once_and_is_no_part_of_checkpoints():
    torch.manual_seed(0)
    teacher = Counting()
    options = {"temperature": 2.0, "alpha": 0.5}
    known, direct = SoftLabelLoss(teacher, unchanged=DATASET, **options), SoftLabelLoss(teacher, **options)
    assert known.state_dict() == {} and not list(known.parameters())
    for start in (0, 5, 0):
        index = torch.arange(start, start + 5).flip(0)
        known.begin(index, 0.0)
        found = known(*batch(index))
        assert teacher.counter.images == len(DATASET.train)
        torch.testing.assert_close(found, direct(*batch(index)))
        teacher.counter.images -= 5


def test_images_that_are_no_batch_of_the_training_are_shown_to_the_teacher():
    teacher = Counting()
    loss = SoftLabelLoss(teacher, temperature=2.0, alpha=0.5, unchanged=DATASET)
    loss.begin(torch.arange(4), 0.0)
    loss(*batch(torch.arange(4)))
    teacher.counter.images = 0
    loss(*batch(torch.arange(4, 7)))
    assert teacher.counter.images == 3


def test_logits_that_take_too_much_memory_are_not_kept():
    memory = 4 * len(DATASET.train) * len(DATASET.classes) - 1
    teacher = Counting()
    loss = SoftLabelLoss(teacher, temperature=2.0, alpha=0.5, unchanged=DATASET, memory_bytes=memory)
    loss.begin(torch.arange(4), 0.0)
    loss(*batch(torch.arange(4)))
    assert teacher.counter.images == 4


def test_the_teacher_is_not_altered():
    teacher = Counting().train()
    loss = SoftLabelLoss(teacher, temperature=2.0, alpha=0.5)
    loss(*batch(torch.arange(4)))
    assert teacher.training
    assert all(weight.requires_grad for weight in teacher.parameters())
