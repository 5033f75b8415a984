"""What a process does with its part of a batch, beside the whole batch in one process."""

import pytest
import torch
from kondense.errors import InputError
from kondense.processes import PeerError, Processes, check_devices, joined
from kondense.training.augment import Rows, augment, mix
from kondense.training.feed import Feed
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from kondense.training.synchronised import SynchronisedBatchNorms
from torch import nn

from tests.support.together import together
from tests.support.toy_training import toy_dataset


@pytest.mark.parametrize("names", [("crop", "flip"), ("flip",), ("resized_crop",), ("rand_augment", "crop"), ()])
def test_rows_of_a_batch_are_augmented_as_in_the_whole_batch(names):
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    whole, after = augment(images, names, torch.Generator().manual_seed(2)), torch.get_rng_state()
    for rows in ((0, 1, 2), (8, 0, 1), (5, 6, 7, 8)):
        torch.manual_seed(1)
        part = augment(images[list(rows)], names, torch.Generator().manual_seed(2), Rows(rows, 9))
        assert torch.equal(part, whole[list(rows)])
        assert torch.equal(torch.get_rng_state(), after)


def test_a_part_is_mixed_as_in_the_whole_batch_given_the_image_before_it():
    images, labels = torch.randn(9, 3, 8, 8), torch.arange(9) % 4
    torch.manual_seed(1)
    mixed, probabilities = mix(images, labels, ("mixup", "cutmix"), 4)
    for rows in ([8, 0, 1, 2, 3], [3, 4, 5, 6, 7, 8]):
        torch.manual_seed(1)
        part, part_probabilities = mix(images[rows], labels[rows], ("mixup", "cutmix"), 4)
        assert torch.equal(part[1:], mixed[rows[1:]])
        assert torch.equal(part_probabilities[1:], probabilities[rows[1:]])


def test_synchronised_norms_are_norms_of_the_whole_batch(tmp_path):
    """Against torch's own on the whole batch: outputs, all gradients, running statistics."""
    images = torch.randn(9, 6, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 20
    networks = {
        "affine": lambda: nn.Sequential(nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Flatten()),
        "plain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(150, 7), nn.BatchNorm1d(7, affine=False)),
        "average": lambda: nn.BatchNorm2d(6, momentum=None),
        "untracked": lambda: nn.BatchNorm2d(6, track_running_stats=False),
        "channels_last": lambda: nn.BatchNorm2d(6).to(memory_format=torch.channels_last),
    }

    def passed(make, own, *, parts):
        torch.manual_seed(0)
        module = make()
        inputs = images[own].clone().requires_grad_()
        outputs = module(inputs)
        outputs.square().mul(torch.arange(len(images))[own].reshape(-1, *[1] * (outputs.ndim - 1))).sum().backward()
        gradients = [parameter.grad for parameter in module.parameters()]
        if parts:
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)
        return outputs.detach(), inputs.grad, gradients, list(module.buffers())

    def synchronised(processes):
        own = list(processes.part(len(images)))
        with SynchronisedBatchNorms():
            return {name: passed(make, own, parts=True) for name, make in networks.items()}

    results = together(synchronised, tmp_path, 2)
    for name, make in networks.items():
        expected = passed(make, list(range(len(images))), parts=False)
        for index in (0, 1):  # outputs, gradients of the inputs
            found = torch.cat([result[name][index] for result in results])
            assert_near(found, expected[index])
        for index in (2, 3):  # gradients of the parameters, buffers
            for found, wanted in zip(results[0][name][index], expected[index], strict=True):
                assert_near(found, wanted)


def assert_near(found, wanted):
    """Compare on the scale of the largest value: float32 rounds sums of hundreds of values that cancel."""
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max() + 1e-4


def test_a_batch_smaller_than_the_processes_is_refused():
    dataset = toy_dataset()
    with joined(Processes(0, 4)):
        with pytest.raises(InputError, match=r"^batch_size must be at least the 4 devices, but got 3\.$"):
            Feed(dataset.train, TrainingConfig(batch_size=3, device="cpu"), torch.device("cpu"))
        few = toy_dataset(train=3)
        with pytest.raises(InputError, match=r"at least the 4 devices, but got 3 training images\.$"):
            Feed(few.train, TrainingConfig(device="cpu"), torch.device("cpu"))


def test_devices_are_the_processes_of_the_group():
    check_devices(0), check_devices(1)
    with pytest.raises(InputError, match=r"^devices must be 0 or 1 here, .* in 1 process, but got 2; `kondense run"):
        check_devices(2)
    with joined(Processes(1, 3)):
        check_devices(3)
        with pytest.raises(InputError, match="devices must be 0 or 3 here"):
            check_devices(2)
    with pytest.raises(InputError, match="devices must be 0 or 1"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), toy_dataset(), TrainingConfig(devices=2, device="cpu"))


def test_an_error_of_the_first_process_is_one_of_all(tmp_path):
    def failing(processes):
        with pytest.raises((ZeroDivisionError, PeerError)) as told:
            processes.from_first(lambda: 1 // 0)
        return type(told.value), str(told.value)

    assert [kind for kind, _ in together(failing, tmp_path)] == [ZeroDivisionError, PeerError]
