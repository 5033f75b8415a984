import pytest
import torch
from kondense.training.muon import Muon, orthogonalise
from torch import nn

RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.01


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def descend(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int = 3) -> None:
    """Make steps along gradients that depend on nothing but the step."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.numel(), generator=generator).reshape(weight.shape)
        optimizer.step()


def muon(weights: list[nn.Parameter]) -> Muon:
    return Muon([{"params": weights, "weight_decay": DECAY}], learning_rate=RATE, momentum=MOMENTUM)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (40, 4, 3, 3), (6, 5, 3), (10, 40), (256, 128)])
def test_a_weight_moves_as_its_matrix_does_under_torchs_muon(shape):
    (ours,), (theirs,) = parameters(shape), parameters(shape)
    before = ours.detach().clone()
    matrix = nn.Parameter(theirs.detach().flatten(1))
    descend(muon([ours]), [ours])
    descend(torch.optim.Muon([matrix], lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True), [matrix])
    moved, expected = ours.detach() - before, matrix.detach().reshape(shape) - before
    # Torch iterates in bfloat16 and weighs gradients by 1 - momentum, which no direction depends on.
    assert float((moved - expected).norm() / expected.norm()) < 0.02


def test_large_matrices_and_vectors_move_as_under_sgd():
    ours, theirs = parameters((129, 200), (9,)), parameters((129, 200), (9,))
    descend(muon(ours), ours)
    sgd = torch.optim.SGD(theirs, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    descend(sgd, theirs)
    for weight, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weight, expected)


def test_a_parameter_without_gradient_stays():
    still, moving = parameters((4, 2, 3, 3), (4, 2, 3, 3))
    before = still.detach().clone()
    optimizer = muon([still, moving])
    descend(optimizer, [moving])
    assert torch.equal(still, before)
    assert not torch.equal(moving, before)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (16, 16)])
def test_orthogonalise_keeps_singular_vectors_and_levels_singular_values(shape):
    matrix_RC = parameters(shape)[0].detach()
    u, values, vh = torch.linalg.svd(matrix_RC, full_matrices=False)
    large = values > 0.05 * matrix_RC.norm()
    turned = u.T @ orthogonalise(matrix_RC) @ vh.T
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), atol=1e-4, rtol=0)
    assert turned.diagonal()[large].min() > 0.6
    assert turned.diagonal().max() < 1.3


def test_orthogonalise_of_zero_is_zero():
    assert not orthogonalise(torch.zeros(3, 4)).any()
