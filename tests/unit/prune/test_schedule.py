import pytest
from kondense.prune.schedule import Ramp, epochs_by_step, shares


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


def test_a_ramp_rises_in_equal_steps_of_progress_and_once_each():
    ramp = Ramp("linear", epochs=2.0, steps=4)
    rises = {step: ramp.rise(step, step / 6) for step in range(1, 31)}  # 6 steps of training in an epoch
    assert {step: share for step, share in rises.items() if share is not None} == {3: 0.25, 6: 0.5, 9: 0.75, 12: 1.0}
    assert [ramp.share(epoch) for epoch in (0.5, 2, 3)] == [0.25, 1.0, 1.0]


def test_a_ramp_shorter_than_its_steps_still_ends_at_one():
    ramp = Ramp("cubic", epochs=0.7)  # 100 steps in 7 of training
    shares_seen = [ramp.rise(step, step / 10) for step in range(1, 12)]
    assert all(share is not None for share in shares_seen[:7])
    assert shares_seen[6:] == [1.0, None, None, None, None]
