import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from kondense.networks.build import NetworkSpec, build
from kondense.store.open import open_store
from kondense.train.config import TrainConfig
from kondense.training import feed
from kondense.training.checkpoint import Checkpoint, open_checkpoint
from kondense.training.fit import fit
from kondense.training.losses import label_loss
from kondense.training.settings import OPTIMIZERS, TrainingConfig
from kondense.training.trainer import NonFiniteLossError
from torch import nn

from tests.support.toy_training import toy_dataset

pytestmark = pytest.mark.usefixtures("log_on_stdout")

CONFIG = TrainingConfig(epochs=4, batch_size=32, learning_rate=0.02, augment="crop_flip", averaging=0.9, device="cpu")


class StopError(Exception):
    """Stands for a kill."""


def network(name="resnet8", image_size=16):
    return build(NetworkSpec(name, {"classes": 3, "channels": 1, "image_size": image_size}), seed=1)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return Checkpoint(open_store(str(tmp_path)), "train/key")


def test_equals_a_plain_pytorch_loop():
    dataset, config = toy_dataset(), TrainingConfig(epochs=2, batch_size=32, schedule="constant", warmup_epochs=0.0)
    ours, plain = network("lenet300"), network("lenet300")
    fit(ours, dataset, config)
    decay = [weight for weight in plain.parameters() if weight.ndim > 1]
    rest = [weight for weight in plain.parameters() if weight.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest}],
        lr=config.rate,
        momentum=config.momentum,
        nesterov=True,
        fused=False,
    )
    for epoch in range(2):
        order = torch.randperm(192, generator=feed.step_generator(config.seed, epoch))
        for index in order.split(32):
            optimizer.zero_grad()
            images = (dataset.train.images[index].float() / 255 - 0.35) / 0.17
            F.cross_entropy(plain(images), dataset.train.labels[index]).backward()
            optimizer.step()
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-4, atol=1e-5)


def test_learns():
    module = network()
    curve = fit(module, toy_dataset(), CONFIG)
    assert [point["epoch"] for point in curve] == [1, 2, 3, 4]
    assert curve[-1]["validation_accuracy"] > 0.9
    assert not module.training


def test_same_seed_same_weights_other_seed_other_weights_and_no_global_state():
    dataset, modules = toy_dataset(), [network() for _ in range(3)]
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for module, seed in zip(modules, (0, 0, 1), strict=True):
        fit(module, dataset, dataclasses.replace(CONFIG, epochs=1, seed=seed))
    assert same_weights(modules[0], modules[1])
    assert not same_weights(modules[0], modules[2])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_resumes_bit_for_bit_after_a_stop_between_epochs(checkpoint, stop_at):
    straight, stopped = network(), network()
    curve = fit(straight, toy_dataset(), CONFIG)

    def stop(point):
        if point["epoch"] == stop_at + 1:
            raise StopError

    with pytest.raises(StopError):
        fit(stopped, toy_dataset(), CONFIG, checkpoint=checkpoint, on_epoch=stop)
    resumed = network()
    seen = []
    points = fit(resumed, toy_dataset(), CONFIG, checkpoint=checkpoint, on_epoch=seen.append)
    assert json.dumps(points) == json.dumps(curve)  # to the letter: the curve is part of an artifact with a digest
    assert len(seen) == 4 - stop_at
    assert same_weights(straight, resumed)


HEAVY = {"augment": "resized_crop+flip+rand_augment+mixup+cutmix", "class_weights": "balanced", "layer_decay": 0.8}


@pytest.mark.parametrize("settings", [*({"optimizer": name} for name in OPTIMIZERS), {**HEAVY, "clip_norm": 0.1}])
def test_resumes_bit_for_bit_within_an_epoch(checkpoint, settings):
    config = dataclasses.replace(CONFIG, **settings)
    straight = network()
    curve = fit(straight, toy_dataset(), config)
    checkpoint = dataclasses.replace(checkpoint, seconds=0.0)
    plain, steps = label_loss(config, toy_dataset()), []

    def stop_at_ninth(*arguments):
        steps.append(arguments)
        if len(steps) == 9:
            raise StopError
        return plain(*arguments)

    with pytest.raises(StopError):
        fit(network(), toy_dataset(), config, loss=stop_at_ninth, checkpoint=checkpoint)
    assert checkpoint.load(epochs=4).position["step"] == 2
    resumed = network()
    assert fit(resumed, toy_dataset(), config, checkpoint=checkpoint) == curve
    assert same_weights(straight, resumed)


class StoppingCheckpoint(Checkpoint):
    def save(self, state):
        super().save(state)
        raise StopError


def test_a_run_that_goes_on_tells_again_of_its_own_epochs(checkpoint, caplog):
    def epochs_told(epochs, checkpoint):
        caplog.clear()
        with contextlib.suppress(StopError):
            fit(
                network(),
                toy_dataset(),
                dataclasses.replace(CONFIG, epochs=epochs, max_epochs=6),
                checkpoint=checkpoint,
            )
        return [line.partition(" images_per_s")[0] for line in caplog.messages if line.startswith("epoch ")]

    caplog.set_level("INFO")
    whole = epochs_told(2, checkpoint)
    assert [line.split()[1] for line in whole] == ["1/2", "2/2"]
    assert epochs_told(2, checkpoint) == whole  # killed after its last epoch
    (third,) = epochs_told(4, StoppingCheckpoint(checkpoint.store, checkpoint.prefix))  # a promotion
    again = epochs_told(4, checkpoint)
    assert again[0] == third and [line.split()[1] for line in again] == ["3/4", "4/4"]


def test_promotion_continues_the_run_of_the_longest_horizon(checkpoint):
    config = dataclasses.replace(CONFIG, max_epochs=6)
    straight, promoted, seen = network(), network(), []
    fit(straight, toy_dataset(), dataclasses.replace(config, epochs=6))
    fit(network(), toy_dataset(), dataclasses.replace(config, epochs=2), checkpoint=checkpoint)
    fit(promoted, toy_dataset(), dataclasses.replace(config, epochs=6), checkpoint=checkpoint, on_epoch=seen.append)
    assert [point["epoch"] for point in seen] == [3, 4, 5, 6]
    assert same_weights(straight, promoted)
    again, short = network(), network()
    fit(again, toy_dataset(), dataclasses.replace(config, epochs=2), checkpoint=checkpoint, on_epoch=seen.append)
    fit(short, toy_dataset(), dataclasses.replace(config, epochs=2))
    assert same_weights(again, short)
    assert len(seen) == 4


def test_checkpoint_keys_leave_out_the_epochs_but_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("KONDENSE_CHECKPOINTS", str(tmp_path))
    config = dataclasses.replace(CONFIG, max_epochs=9)

    def key(config, inputs="d"):
        return open_checkpoint("train", config, {"dataset": inputs}).prefix

    assert key(dataclasses.replace(config, epochs=3)) == key(dataclasses.replace(config, epochs=9))
    assert key(config) != key(dataclasses.replace(config, learning_rate=0.5))
    assert key(config) != key(dataclasses.replace(config, max_epochs=27))
    assert key(config) != key(config, "other")
    monkeypatch.delenv("KONDENSE_CHECKPOINTS")
    assert open_checkpoint("train", config, {}) is None


def test_checkpoint_keys_hold_the_code_of_the_users_networks(tmp_path, monkeypatch):
    monkeypatch.setenv("KONDENSE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for activation in ("ReLU", "Tanh"):
        (tmp_path / "minenet.py").write_text(
            f"from torch import nn\nclass Net(nn.Module):\n    act = nn.{activation}()\n"
        )
        named = open_checkpoint("train", TrainConfig(network="minenet:Net"), {"dataset": "d"}).prefix
        of_a_model = open_checkpoint("prune", CONFIG, {"model": "m"}, ["minenet:Net"]).prefix
        keys += [named, of_a_model]
    assert len(set(keys)) == 4


def test_a_damaged_checkpoint_is_reported_and_trained_again(checkpoint, caplog):
    straight, again = network(), network()
    fit(straight, toy_dataset(), CONFIG, checkpoint=checkpoint)
    (key,) = checkpoint.store.list(checkpoint.prefix + "/")
    content = bytearray(checkpoint.store.read(key))
    content[len(content) // 2] ^= 1
    checkpoint.store.write(key, bytes(content))
    fit(again, toy_dataset(), CONFIG, checkpoint=checkpoint)
    assert "is damaged" in caplog.text
    assert same_weights(straight, again)


@pytest.mark.parametrize("position", ['{"a": 1}', "[]", "null", '"x\\ny"'])
def test_a_checkpoint_whose_position_is_no_text_is_damaged(checkpoint, caplog, position):
    header = f'{{"__metadata__": {{"position": {position}}}}}'.encode()
    body = len(header).to_bytes(8, "little") + header
    checkpoint.store.write(f"{checkpoint.prefix}/000001-00000000", hashlib.sha256(body).digest() + body)
    assert checkpoint.load(epochs=2) is None
    (record,) = caplog.records
    assert "it is not a checkpoint" in record.message and "\n" not in record.message


def test_a_checkpoint_of_another_network_is_reported_and_trained_again(checkpoint, caplog):
    config = dataclasses.replace(CONFIG, epochs=1)
    straight, again = network(), network()
    fit(straight, toy_dataset(), config)
    fit(network("lenet300"), toy_dataset(), config, checkpoint=checkpoint)
    fit(again, toy_dataset(), config, checkpoint=checkpoint)
    assert "has the tensors of another network" in caplog.text
    assert same_weights(straight, again)


def test_a_longer_gradient_is_scaled_to_the_norm():
    modules = [network("lenet300") for _ in range(2)]
    for module, clip_norm in zip(modules, (1e-3, 2e-3), strict=True):
        settings = {
            "clip_norm": clip_norm,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "averaging": 0.0,
            "warmup_epochs": 0.0,
        }
        config = dataclasses.replace(CONFIG, epochs=1, batch_size=192, augment="none", **settings)
        fit(module, toy_dataset(), config)
    start = network("lenet300")
    first, second = (
        torch.cat([(a - b).flatten() for a, b in zip(module.parameters(), start.parameters(), strict=True)])
        for module in modules
    )
    assert float(first.detach().norm()) == pytest.approx(1e-3 * CONFIG.learning_rate, rel=1e-3)
    torch.testing.assert_close(2 * first, second, rtol=1e-2, atol=1e-8)


class Inception(nn.Module):
    """Returns the logits alone in evaluation mode, and after those of an auxiliary head in training mode."""

    def __init__(self):
        super().__init__()
        self.stem, self.aux, self.fc = nn.Linear(256, 16), nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, images):
        hidden = self.stem(images.flatten(1)).relu()
        return (self.aux(hidden), self.fc(hidden)) if self.training else self.fc(hidden)


@pytest.mark.parametrize("weight", [0.3, 0.0])
def test_auxiliary_heads_are_trained_with_their_weight(weight):
    module, start = Inception(), copy.deepcopy(Inception())
    start.load_state_dict(module.state_dict())
    config = TrainingConfig(epochs=3, batch_size=32, device="cpu", auxiliary_weight=weight, weight_decay=0.0)
    curve = fit(module, toy_dataset(), config)
    assert curve[-1]["validation_accuracy"] > 0.9  # of the right output
    assert torch.equal(module.aux.weight, start.aux.weight) == (not weight)


def test_masked_weights_stay_zero():
    module = network("lenet300")
    mask = torch.rand(module.fc1.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    fit(module, toy_dataset(), dataclasses.replace(CONFIG, epochs=2), masks={"fc1.weight": mask})
    assert torch.equal(module.fc1.weight != 0, mask)


def test_a_loss_that_diverges_stops_the_run_with_its_place():
    config = dataclasses.replace(CONFIG, learning_rate=100.0, momentum=0.99, averaging=0.0, clip_norm=0.0)
    with pytest.raises(NonFiniteLossError, match=r"must stay finite, but got \S+ in epoch \d+ by step \d+"):
        fit(network("lenet300"), toy_dataset(), config, loss=lambda logits, labels, images: logits.square().mean())


def test_a_loss_that_is_not_finite_at_the_first_step_is_not_blamed_on_the_rate():
    config = dataclasses.replace(CONFIG, averaging=0.0)
    with pytest.raises(
        NonFiniteLossError, match=r"got nan in epoch 1 by step 1, .*; it is so before anything is learned"
    ):
        fit(network("lenet300"), toy_dataset(), config, loss=lambda logits, labels, images: logits.mean() * torch.nan)


def test_a_loss_that_explodes_and_stays_finite_is_told(caplog):
    factors = iter([1.0] * 6 + [1e6] * 18)
    loss = label_loss(CONFIG, toy_dataset())
    config = dataclasses.replace(CONFIG, epochs=2, learning_rate=1e-9)
    fit(network("lenet300"), toy_dataset(), config, loss=lambda *arguments: loss(*arguments) * next(factors))
    assert "training diverges: the loss of epoch 2 is 1.09e+06" in caplog.text


def test_sigterm_saves_and_exits_143_and_the_next_run_ends_the_same(tmp_path):
    program = textwrap.dedent(
        """
        import sys, torch
        torch.set_num_threads(1)
        from kondense.logging import to_stdout
        from kondense.store.open import open_store
        from kondense.training.checkpoint import Checkpoint
        from kondense.training.fit import fit
        from kondense.training.settings import TrainingConfig
        from tests.unit.training.test_fit import network
        from tests.support.toy_training import toy_dataset
        module = network()
        config = TrainingConfig(epochs=40, batch_size=32, learning_rate=0.02, device="cpu")
        checkpoint = Checkpoint(open_store(sys.argv[1]), "k") if sys.argv[1] else None
        with to_stdout():
            fit(module, toy_dataset(), config, checkpoint=checkpoint)
        torch.save(module.state_dict(), sys.argv[2])
        """
    )

    def start(store, output):
        command = [sys.executable, "-c", program, store, str(tmp_path / output)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    process = start(str(tmp_path / "store"), "killed.pt")
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            process.send_signal(signal.SIGTERM)
            break
    process.stdout.read()
    assert process.wait() == 143
    resumed = start(str(tmp_path / "store"), "resumed.pt")
    assert "resumed at epoch" in resumed.stdout.read()
    straight = start("", "straight.pt")
    straight.stdout.read()
    assert (resumed.wait(), straight.wait()) == (0, 0)
    first, second = (torch.load(tmp_path / name) for name in ("resumed.pt", "straight.pt"))
    assert all(torch.equal(first[name], second[name]) for name in second)
