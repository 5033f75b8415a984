import math

import pytest
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import nn

from components.training.distillation import distillation_loss, soft_cross_entropy

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


def test_no_gradient_reaches_the_teacher_and_it_is_in_evaluation_mode():
    teacher = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3)).train()
    student = nn.Linear(4, 3)
    images, labels = torch.ones(2, 1, 2, 2), torch.tensor([0, 2])
    loss = distillation_loss(teacher, temperature=2.0, alpha=0.5)
    assert not any(layer.training for layer in teacher.modules())
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
        loss = distillation_loss(teacher, temperature=4.0, alpha=alpha, label_smoothing=0.1)
        torch.testing.assert_close(loss(LOGITS, labels, images), (1 - alpha) * hard + alpha * soft)
