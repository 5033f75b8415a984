import pytest
import torch
from kondense.store.open import open_store
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.losses import Objective
from kondense.training.settings import TrainingConfig
from torch import Tensor, nn

from tests.support.toy_training import toy_dataset
from tests.unit.training.test_fit import StopError, network, same_weights

CONFIG = TrainingConfig(epochs=3, batch_size=32, learning_rate=0.02, device="cpu")


class Scaled(Objective):
    """Cross-entropy of the logits behind a layer of its own, with a buffer that counts the steps."""

    def __init__(self):
        super().__init__()
        self.adapter = nn.Linear(3, 3)
        nn.init.eye_(self.adapter.weight)
        nn.init.zeros_(self.adapter.bias)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.told = []

    def begin(self, index_B: Tensor, progress: float) -> None:
        self.told.append((index_B.tolist(), progress))
        self.steps += 1

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.adapter(logits_BK), labels_B)


def test_it_is_told_of_every_step_and_its_weights_learn():
    objective, dataset = Scaled(), toy_dataset()
    fit(network(), dataset, CONFIG, loss=objective)
    assert len(objective.told) == 18
    assert [progress for _, progress in objective.told] == pytest.approx([step / 18 for step in range(18)])
    for epoch in range(3):
        indices = [index for told, _ in objective.told[6 * epoch : 6 * epoch + 6] for index in told]
        assert sorted(indices) == list(range(192))
    assert not torch.equal(objective.adapter.weight, torch.eye(3))


def test_progress_is_that_of_the_horizon():
    objective = Scaled()
    config = TrainingConfig(epochs=1, max_epochs=4, batch_size=96, learning_rate=0.02, device="cpu")
    fit(network(), toy_dataset(), config, loss=objective)
    assert [progress for _, progress in objective.told] == [0.0, 0.125]


def test_its_weights_momenta_and_buffers_resume_bit_for_bit_within_an_epoch(tmp_path):
    straight, first = network(), Scaled()
    curve = fit(straight, toy_dataset(), CONFIG, loss=first)
    checkpoint = Checkpoint(open_store(str(tmp_path)), "train/key", seconds=0.0)

    class Stopping(Scaled):
        def begin(self, index_B: Tensor, progress: float) -> None:
            super().begin(index_B, progress)
            if len(self.told) == 9:
                raise StopError

    with pytest.raises(StopError):
        fit(network(), toy_dataset(), CONFIG, loss=Stopping(), checkpoint=checkpoint)
    tensors = checkpoint.load(epochs=3).tensors
    assert {"objective.adapter.weight", "objective_momentum.adapter.weight", "objective.steps"} <= set(tensors)
    resumed, second = network(), Scaled()
    assert fit(resumed, toy_dataset(), CONFIG, loss=second, checkpoint=checkpoint) == curve
    assert same_weights(straight, resumed)
    assert same_weights(first, second)
    assert int(second.steps) == 18
