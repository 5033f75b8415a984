"""Cuts by class: every class has its share, and cuts of many images stay the random ones."""

import numpy as np
import pytest
from kondense.data.collection import Collection, Labelled
from kondense.data.split import split_collection
from kondense.data.stratified import cut, quotas


def collection(counts: list[int]) -> Collection:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Collection(tuple(map(str, range(len(counts)))), Labelled(np.empty((len(labels), 0)), labels), "test")


def by_class(counts: list[int], **settings: object) -> dict[str, list[int]]:
    """Return the images of every class in each split."""
    given = collection(counts)
    choices = split_collection(given, **settings)
    together = np.concatenate([choice.indices for choice in choices.values()])
    assert sorted(together) == list(range(sum(counts)))  # every image once
    return {
        name: np.bincount(given.train.labels[choice.indices], minlength=len(counts)).tolist()
        for name, choice in choices.items()
    }


@pytest.mark.parametrize("seed", range(20))
def test_every_class_with_three_images_is_in_every_split(seed: int) -> None:
    found = by_class([40, 12, 5, 3], seed=seed)
    assert found == {"test": [8, 2, 1, 1], "validation": [1, 1, 1, 1], "train": [31, 9, 3, 1]}


def test_ten_images_of_each_of_ten_classes() -> None:
    assert by_class([10] * 10) == {"train": [7] * 10, "validation": [1] * 10, "test": [2] * 10}


def test_a_class_of_two_images_is_in_train_and_validation_and_one_of_one_in_train() -> None:
    found = by_class([30, 30, 2, 1])
    assert [found[name][2:] for name in ("train", "validation", "test")] == [[1, 1], [1, 0], [0, 0]]


def test_a_size_that_the_user_asked_for_stays() -> None:
    assert sum(by_class([10] * 10, validation_size=4)["validation"]) == 4
    assert sum(by_class([10] * 10, test_fraction=0.05)["test"]) == 5


def test_one_of_every_class_is_not_taken_where_that_were_half_of_the_images() -> None:
    assert sum(by_class([3] * 30)["validation"]) == 6  # a twelfth of the 72 that are left, and not 30


def test_a_cut_of_many_images_is_the_random_one() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 2400)
    given = Collection(tuple(map(str, range(10))), Labelled(np.empty((2400, 0)), labels), "test")
    order = np.random.default_rng(5).permutation(2400)
    choices = split_collection(given, seed=5)
    assert np.array_equal(choices["test"].indices, order[:480])
    assert np.array_equal(choices["validation"].indices, order[480:640])
    assert np.array_equal(choices["train"].indices, order[640:])


def test_the_order_is_that_of_the_permutation() -> None:
    order = np.random.default_rng(0).permutation(30)
    taken, rest = cut(order, order % 3, 6, left=2)
    places = {int(index): place for place, index in enumerate(order)}
    for part in (taken, rest):
        assert [places[int(index)] for index in part] == sorted(places[int(index)] for index in part)
    assert np.bincount(taken % 3).tolist() == [2, 2, 2]


@pytest.mark.parametrize("seed", range(30))
def test_quotas_are_within_their_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 30, 12)
    count = int(rng.integers(1, max(2, np.maximum(counts - 2, 0).sum())))
    given = quotas(counts, count, left=2)
    assert given is not None and given.sum() == count
    assert (given <= np.maximum(counts - 2, 0)).all()
    able = counts > 2
    if count >= able.sum():
        assert (given[able] >= 1).all()
    ideal = counts * count / counts.sum()
    free = (given > 1) & (given < counts - 2)
    assert (np.abs(given - ideal)[free] <= 12).all()


def test_what_cannot_be_cut_by_class_is_cut_at_random() -> None:
    assert quotas(np.ones(5, np.int64), 2, left=1) is None
