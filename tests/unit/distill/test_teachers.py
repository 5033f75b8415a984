import math

import numpy as np
import pytest
import torch
from kondense.distill import cache
from kondense.distill.attention import AttentionLoss
from kondense.distill.config import DistillConfig
from kondense.distill.feature_hooks import record_outputs
from kondense.distill.layer_pairs import pair_by_maps
from kondense.distill.loss import DistillationLoss, value_at
from kondense.distill.teachers import Teachers, weigh
from kondense.errors import InputError
from kondense.measuring.accuracy import accuracy, predict
from kondense.networks.build import NetworkSpec, build
from kondense.training.losses import SoftLabelLoss
from scipy.special import rel_entr, softmax
from torch import nn

from tests.support.toy_training import toy_dataset

CPU = torch.device("cpu")
LOGITS = [torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) * 3 for seed in range(4)]
IMAGES, LABELS = torch.zeros(4, 1, 16, 16), torch.tensor([0, 2, 1, 1])


class Fixed(nn.Module):
    """Answers every image with the same logits, [classes]; keeps count of its passes."""

    def __init__(self, *logits):
        super().__init__()
        self.logits, self.passes = torch.tensor(logits), 0

    def forward(self, images):
        self.passes += len(images)
        return self.logits.expand(len(images), -1)


class PerImage(Fixed):
    """Answers with given logits, [batch, classes]."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


def network(name="resnet8", seed=0):
    return build(NetworkSpec(name, {"classes": 3, "channels": 1, "image_size": 16}), seed=seed)


def loss_of(logits, config, weights=None):
    teachers = Teachers([PerImage(batch) for batch in logits], weights or [1 / len(logits)] * len(logits))
    return DistillationLoss(config, teachers, None, {})


@pytest.mark.parametrize("weights", [[1 / 3] * 3, [0.5, 0.2, 0.3], [0.6, 0.4, 0.0]])
def test_the_softened_outputs_of_several_teachers_are_averaged(weights):
    config = DistillConfig(temperature=3.0, alpha=0.6)
    mean = sum(w * softmax(each.double().numpy() / 3.0, axis=1) for w, each in zip(weights, LOGITS[:3], strict=True))
    student = softmax(LOGITS[3].double().numpy() / 3.0, axis=1)
    soft = 9.0 * rel_entr(mean, student).sum(1).mean()
    hard = float(nn.functional.cross_entropy(LOGITS[3], LABELS))
    found = loss_of(LOGITS[:3], config, weights)(LOGITS[3], LABELS, IMAGES)
    assert found.item() == pytest.approx(0.6 * soft + 0.4 * hard, rel=1e-5)


def test_one_teacher_gives_the_loss_that_fine_tuning_has():
    config = DistillConfig(temperature=2.0, alpha=0.7, label_smoothing=0.1)
    expected = SoftLabelLoss(PerImage(LOGITS[0]), temperature=2.0, alpha=0.7, label_smoothing=0.1)
    found = loss_of(LOGITS[:1], config)(LOGITS[3], LABELS, IMAGES)
    torch.testing.assert_close(found, expected(LOGITS[3], LABELS, IMAGES))


@pytest.mark.parametrize("course", ["constant", "linear", "cosine"])
def test_temperature_and_alpha_follow_their_courses(course):
    fractions = {"constant": 0.0, "linear": 0.25, "cosine": (1 - math.cos(math.pi / 4)) / 2}
    ends = {"temperature": 4.0, "temperature_end": 2.0, "alpha": 0.2, "alpha_end": 1.0}
    config = DistillConfig(**ends, temperature_schedule=course, alpha_schedule=course)
    loss = loss_of(LOGITS[:1], config)
    loss.begin(torch.arange(4), 0.25)
    assert loss.temperature == pytest.approx(4.0 - 2.0 * fractions[course])
    assert loss.alpha == pytest.approx(0.2 + 0.8 * fractions[course])
    fixed = loss_of(LOGITS[:1], DistillConfig(temperature=loss.temperature, alpha=loss.alpha))
    torch.testing.assert_close(loss(LOGITS[3], LABELS, IMAGES), fixed(LOGITS[3], LABELS, IMAGES))


@pytest.mark.parametrize("course", ["linear", "cosine"])
def test_courses_go_from_the_first_value_to_the_last_without_turning(course):
    found = [value_at(course, 5.0, 1.0, step / 10) for step in range(11)]
    assert (found[0], found[-1]) == (5.0, pytest.approx(1.0))
    assert found == sorted(found, reverse=True)
    assert found[5] == pytest.approx(3.0)


def test_without_labels_no_label_is_looked_at():
    config = DistillConfig(labels=False, alpha=1.0)
    found = loss_of(LOGITS[:1], config)(LOGITS[3], torch.full((4,), -7), IMAGES)  # a label that cross-entropy refuses
    torch.testing.assert_close(found, loss_of(LOGITS[:1], DistillConfig(alpha=1.0))(LOGITS[3], LABELS, IMAGES))


def test_weights_are_uniform_or_the_accuracy_above_chance():
    dataset = toy_dataset()
    teachers = [Fixed(1.0, 0.0, 0.0), Fixed(0.0, 1.0, 0.0), Fixed(0.0, 0.0, 1.0)]
    assert weigh("uniform", teachers, dataset, CPU) == pytest.approx([1 / 3] * 3)
    shares = np.bincount(dataset.validation.labels, minlength=3) / len(dataset.validation)
    above = np.maximum(shares - 1 / 3, 0.0)
    assert weigh("accuracy", teachers, dataset, CPU) == pytest.approx(list(above / above.sum()))
    worst = teachers[int(shares.argmin())]
    assert weigh("accuracy", [worst], dataset, CPU) == [1.0]
    with pytest.raises(ValueError, match=r"better than chance \(0.3333\), but the accuracies are \[0.\d+, 0.\d+\]"):
        weigh("accuracy", [worst, worst], dataset, CPU)


@pytest.mark.parametrize("memory_bytes", [2**30, 0])  # in memory, and in a file
def test_a_cache_holds_what_the_teachers_say(memory_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    dataset, first, second = toy_dataset(), network(), network("lenet300")
    hint = AttentionLoss(pair_by_maps(first, network(seed=1), dataset.shape, ""))
    with record_outputs(first, [pair.teacher.name for pair in hint.pairs], training=False) as layers:
        teachers = Teachers([first, second], [0.5, 0.5], hint, layers)
        cached = cache.fill(teachers, dataset, CPU, memory_bytes=memory_bytes)
        direct = teachers.outputs(dataset.normalise(dataset.train.images[50:60]))
    assert len(cached) == len(direct) == 2 + len(hint.pairs)
    assert all(len(output) == len(dataset.train) for output in cached)
    for output, part in zip(cached, direct, strict=True):
        torch.testing.assert_close(output[50:60], part, rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == []  # the file, where there was one, has no name any more


def test_a_cache_too_large_for_the_disk_is_refused(monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"cache_teacher needs 0 MiB in \S+, but 0 MiB are free; turn it off"):
        cache.fill(Teachers([network()], [1.0]), toy_dataset(), CPU, memory_bytes=0)


def test_cached_outputs_are_looked_up_by_the_images_of_the_batch_and_no_teacher_is_asked():
    teacher = Fixed(1.0, 2.0, 3.0)
    teachers = Teachers([teacher], [1.0])
    cached = torch.randn(10, 3, generator=torch.Generator().manual_seed(5))
    config = DistillConfig(cache_teacher=True)
    loss = DistillationLoss(config, teachers, None, {}, [cached])
    index = torch.tensor([7, 0, 3, 3])
    loss.begin(index, 0.0)
    torch.testing.assert_close(
        loss(LOGITS[3], LABELS, IMAGES), loss_of([cached[index]], config)(LOGITS[3], LABELS, IMAGES)
    )
    assert teacher.passes == 0


def test_teachers_are_asked_in_evaluation_mode_and_get_no_gradient():
    dataset, teacher = toy_dataset(), network().train()
    teachers = Teachers([teacher], [1.0])
    expected = predict(teacher.eval(), dataset.validation, dataset)
    outputs = teachers.outputs(dataset.normalise(dataset.validation.images))
    torch.testing.assert_close(outputs[0], expected)
    assert not outputs[0].requires_grad
    assert 0.0 <= accuracy(outputs[0], dataset.validation.labels) <= 1.0
