"""Confusion and per-class accuracy against scikit-learn."""

import pytest
import torch
from kondense.measuring.classification import agreement, confusion, per_class_accuracy
from sklearn.metrics import confusion_matrix, recall_score


def test_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(0, 7, (500,), generator=generator)
    predictions_N = torch.where(
        torch.rand(500, generator=generator) < 0.6, labels_N, torch.randint(0, 7, (500,), generator=generator)
    )
    found_KK = confusion(predictions_N, labels_N, 7)
    assert found_KK.tolist() == confusion_matrix(labels_N, predictions_N).tolist()
    assert per_class_accuracy(found_KK) == pytest.approx(recall_score(labels_N, predictions_N, average=None))


def test_a_class_without_images_is_0_and_the_matrix_stays_square() -> None:
    found_KK = confusion(torch.tensor([0, 1]), torch.tensor([0, 0]), 3)
    assert found_KK.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert per_class_accuracy(found_KK) == [0.5, 0.0, 0.0]


def test_agreement() -> None:
    assert agreement(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0])) == 0.75


@pytest.mark.parametrize(("predictions", "labels"), [([0, 3], [0, 0]), ([0, 0], [-1, 0]), ([0], [0, 1])])
def test_what_does_not_fit_is_refused(predictions: list[int], labels: list[int]) -> None:
    with pytest.raises(ValueError, match="must (be|have)"):
        confusion(torch.tensor(predictions), torch.tensor(labels), 3)
