import pytest

from components.prune.schedule import epochs_by_step, shares


def test_shares_by_hand():
    assert shares("one_shot", 5) == [1.0]
    assert shares("linear", 4) == [0.25, 0.5, 0.75, 1.0]
    assert shares("cubic", 2) == [1 - 0.5**3, 1.0]
    # Zhu and Gupta 2017, equation 1, with s_i = 0, s_f = 1: s_f + (s_i - s_f) (1 - t / n)^3
    assert shares("cubic", 5) == pytest.approx([1 - (1 - t / 5) ** 3 for t in range(1, 6)])


def test_the_last_step_has_the_epochs_that_are_left():
    assert epochs_by_step(7, 3) == [1, 1, 5]
    assert epochs_by_step(3, 3) == [1, 1, 1]
    assert epochs_by_step(4, 1) == [4]
    with pytest.raises(ValueError, match=r"epochs must be at least steps \(3\), but got 2"):
        epochs_by_step(2, 3)
