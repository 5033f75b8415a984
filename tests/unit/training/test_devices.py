"""Training in several processes: the weights are those of one process, within the rounding of floats."""

import os
import signal

import pytest
import torch
import torch.nn.functional as F
from kondense.data.shards import ShardError
from kondense.measuring.accuracy import predict
from kondense.processes import PeerError
from kondense.store.open import open_store
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from torch import nn

from tests.support.shard_makers import sharded
from tests.support.together import together
from tests.support.toy_training import toy_dataset

# 192 images in batches of 31, of which two processes have 15 and 16.
CONFIG = TrainingConfig(epochs=2, batch_size=31, learning_rate=0.02, device="cpu")
# Weights are up to 0.5; float32 rounds to 6e-8 of a value, and each of 12 steps adds to it.
CLOSE = {"rtol": 1e-4, "atol": 3e-6}


class Network(nn.Module):
    """Two convolutions, with batch norms or without, and a linear layer."""

    def __init__(self, norm=True, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.norm1, self.norm2 = (nn.BatchNorm2d(8) if norm else nn.Identity() for _ in range(2))
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(8 * 8 * 8, 3)

    def forward(self, images):
        maps = F.relu(self.norm1(self.conv1(images)))
        maps = F.relu(self.norm2(self.conv2(maps)))
        return self.linear(self.dropout(maps.flatten(1)))


def trained(config=CONFIG, *, norm=True, dataset=None, dropout=0.0, **options):
    module = Network(norm, dropout)
    curve = fit(module, dataset or toy_dataset(), config, **options)
    return module.state_dict(), curve


def replaced(**values):
    return TrainingConfig(**{**CONFIG.to_dict(), **values})


CASES = {
    "without norms": ({}, False, 2),
    "norms, unequal parts": ({"clip_norm": 0.5}, True, 3),
    "an average, weights of classes": (
        {"averaging": 0.9, "class_weights": "balanced", "label_smoothing": 0.1},
        True,
        2,
    ),
    "augmented and mixed": ({"augment": "crop_flip+resized_crop+mixup+cutmix", "optimizer": "muon"}, True, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_every_layer_is_that_of_one_process(case, tmp_path):
    values, norm, count = CASES[case]
    config = replaced(**values)
    expected, curve = trained(config, norm=norm)
    results = together(lambda _: trained(config, norm=norm), tmp_path, count)
    for state, points in results:
        for name, tensor in expected.items():
            torch.testing.assert_close(state[name], tensor, msg=lambda text, name=name: f"{name}: {text}", **CLOSE)
        assert points == results[0][1]
        for point, other in zip(points, curve, strict=True):
            assert point == pytest.approx(other, rel=1e-5)
    assert all(torch.equal(results[0][0][name], results[-1][0][name]) for name in expected)


def test_norms_of_parts_give_another_network_and_the_statistics_of_the_first(tmp_path):
    config = replaced(sync_batch_norm=False, epochs=1)
    expected, _ = trained(replaced(epochs=1))
    first, second = together(lambda _: trained(config)[0], tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (first["norm2.running_var"] - expected["norm2.running_var"]).abs().max() > 1e-3
    torch.testing.assert_close(first["linear.weight"], expected["linear.weight"], rtol=0, atol=1e-2)


def test_each_process_drops_out_other_values(tmp_path):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.dropout, self.masks = nn.Linear(256, 3), nn.Dropout(0.5), []

        def forward(self, images):
            kept = self.dropout(torch.ones(len(images), 256))
            if self.training:
                self.masks.append(kept != 0)
            return self.linear(images.flatten(1) * kept)

    def dropped(_):
        module = Dropping()
        fit(module, toy_dataset(), replaced(epochs=1, batch_size=96))
        return torch.stack(module.masks[-2:])

    first, second = together(dropped, tmp_path)
    assert 0.45 < (first == second).float().mean() < 0.55  # of 24,576 independent pairs, 0.500 +- 0.003


def test_masks_stay_and_change_alike(tmp_path):
    class Halving:
        def update(self, module, masks, step, epoch):
            if step % 4:
                return None
            gradient = module.linear.weight.grad.abs() * masks["linear.weight"]
            return {"linear.weight": gradient > gradient[masks["linear.weight"]].median()}

    def masked(_=None):
        return trained(masks={"linear.weight": torch.ones(3, 512, dtype=torch.bool)}, masking=Halving())[0]

    expected = masked()
    for state in together(masked, tmp_path):
        kept = expected["linear.weight"] != 0
        assert 0 < kept.sum() < 300
        assert (kept != (state["linear.weight"] != 0)).sum() <= 4  # gradients beside the median


class StopError(Exception):
    """Stands for a kill."""


def test_a_run_goes_on_in_any_number_of_processes(tmp_path):
    """Stopped in the second epoch; the state is that of one process by name, shape and type."""

    def place(name):
        return Checkpoint(open_store(str(tmp_path / name)), "run", seconds=0.0)

    class Failing(Checkpoint):
        def save(self, state):
            key = super().save(state)
            if state.position["epoch"] == 1 and state.position["step"] == 3:
                raise StopError
            return key

    config = replaced(averaging=0.9)

    def stopped(_=None, name="one"):
        store = open_store(str(tmp_path / name))
        with pytest.raises((StopError, RuntimeError)):  # the other process loses its peer
            trained(config, checkpoint=Failing(store, "run", seconds=0.0))

    stopped()
    os.mkdir(tmp_path / "group")
    _run_lost(lambda _: stopped(name="two"), tmp_path / "group")
    one, two = (place(name).load(epochs=2) for name in ("one", "two"))
    assert (two.position["epoch"], two.position["step"]) == (1, 3)
    described = [{name: (each.shape, each.dtype) for name, each in state.tensors.items()} for state in (one, two)]
    assert described[0] == described[1]
    assert one.position.keys() == two.position.keys()

    expected, _ = trained(config)
    whole = together(lambda _: trained(config)[0], _new(tmp_path, "whole"))[0]
    for count in (1, 2, 3):
        copy = _copied(tmp_path / "two", tmp_path / f"two-{count}")
        directory = _new(tmp_path, f"go-{count}")
        state = together(lambda _, copy=copy: trained(config, checkpoint=place(copy))[0], directory, count)[0]
        for name, tensor in expected.items():
            torch.testing.assert_close(state[name], tensor, **CLOSE)
        if count == 2:
            assert all(torch.equal(state[name], whole[name]) for name in whole)


def _new(parent, name):
    (parent / name).mkdir()
    return parent / name


def _copied(source, target):
    import shutil

    shutil.copytree(source, target)
    return target.name


def _run_lost(function, directory):
    """Run two processes of which the group breaks."""
    import multiprocessing

    from tests.support.together import _child

    def broken(rank):
        try:
            _child(function, directory, rank, 2)
        finally:
            os._exit(0)

    children = [multiprocessing.get_context("fork").Process(target=broken, args=(rank,)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]


def test_sigterm_to_one_process_stops_all_at_one_step(tmp_path):
    store = tmp_path / "store"

    def stopped(processes):
        checkpoint = Checkpoint(open_store(str(store)), "run")
        seen = []

        class Watching(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = Network()

            def forward(self, images):
                if self.training:
                    seen.append(len(images))
                    if len(seen) == 10 and processes.rank == 1:
                        os.kill(os.getpid(), signal.SIGTERM)
                return self.network(images)

        with pytest.raises(SystemExit) as ended:
            fit(Watching(), toy_dataset(), CONFIG, checkpoint=checkpoint)
        return ended.value.code, len(seen)

    (code, steps), other = together(stopped, tmp_path)
    assert (code, steps) == other
    assert code == 128 + signal.SIGTERM
    state = Checkpoint(open_store(str(store)), "run").load(epochs=2)
    assert 6 * state.position["epoch"] + state.position["step"] == steps - 3  # three passes try the network
    assert 0 < steps - 3 < 12


def test_evaluation_counts_every_image_once(tmp_path):
    dataset = toy_dataset()

    def counted(_=None):
        module, images = Network(), []
        module.register_forward_hook(lambda layer, inputs, _: images.append(len(inputs[0])))
        return predict(module, dataset.validation, dataset, batch_size=7), sum(images)

    expected, total = counted()
    results = together(counted, tmp_path, 3)
    assert total == len(dataset.validation) == sum(number for _, number in results)
    for logits_NK, _ in results:
        torch.testing.assert_close(logits_NK, expected, **CLOSE)


def test_shards_give_the_images_of_memory_and_a_lost_one_stops_all(tmp_path):
    dataset, place = toy_dataset(), tmp_path / "data"
    streamed = sharded(dataset, place)
    config = replaced(augment="crop_flip+mixup", epochs=1)
    expected, _ = trained(config)
    for state, _ in together(lambda _: trained(config, dataset=streamed), _new(tmp_path, "a")):
        for name, tensor in expected.items():
            torch.testing.assert_close(state[name], tensor, **CLOSE)

    def lost(processes):
        if processes.rank == 1:
            images = streamed.train.images
            images.read = lambda index, read=images.read: read(index) if len(index) < 5 else _raise_shard_error()
        with pytest.raises((ShardError, PeerError)) as told:
            trained(config, dataset=streamed, checkpoint=Checkpoint(open_store(str(tmp_path / "b")), "run"))
        return type(told.value)

    assert together(lost, _new(tmp_path, "c")) == [PeerError, ShardError]


def _raise_shard_error():
    raise ShardError("shard a is missing")
