"""What every entry of the benchmark starts from: a data set, a teacher per network and seed, a budget of epochs."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from kondense.artifacts.model import Model, load_model
from kondense.data.dataset import Dataset, Split, load_dataset
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run as data_prep
from kondense.measuring.accuracy import accuracy, predict
from kondense.train.config import TrainConfig
from kondense.train.stage import run as train


@dataclasses.dataclass(frozen=True)
class Profile:
    """A data set, how long its teachers are trained, and what an epoch of the tables is multiplied by."""

    dataset: str
    teacher_epochs: Mapping[str, int]
    epochs_factor: int
    device: str
    limit: int = 0  # most training images, validation included; 0: all


PROFILES: Mapping[str, Profile] = {
    "cores": Profile("fashion_mnist", {"lenet5": 8, "lenet300": 12, "resnet8": 10}, 1, "cpu"),
    "sample": Profile("fashion_mnist", {"lenet5": 8, "lenet300": 12, "resnet8": 8}, 1, "cpu", limit=12_000),
    "full": Profile("fashion_mnist", {"lenet5": 40, "lenet300": 60, "resnet8": 60}, 6, "auto"),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What an entry's ``run`` is given.

    Attributes:
        profile: of the whole benchmark.
        seed: of the entry; the teacher was trained with the same one.
        dataset_dir: the Dataset artifact.
        teacher_dir: the Model artifact of the entry's network, trained.
        directory: an empty directory for what the entry writes.
    """

    profile: Profile
    seed: int
    dataset_dir: Path
    teacher_dir: Path
    directory: Path

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set, loaded."""
        return load_dataset(self.dataset_dir)

    @property
    def teacher(self) -> Model:
        """The teacher, loaded anew, so that an entry may change it."""
        return load_model(self.teacher_dir)

    def epochs(self, count: int) -> int:
        """Return the epochs that the table's ``count`` means in this profile."""
        return count * self.profile.epochs_factor

    def teacher_test(self) -> float:
        """Return the teacher's accuracy on the test split, %."""
        return test_accuracy(self.teacher.module, self.dataset)

    def drop(self, module: torch.nn.Module) -> dict[str, float]:
        """Return ``test`` (accuracy on the test split, %) and ``drop`` (points below the teacher's)."""
        found = test_accuracy(module, self.dataset)
        return {"test": found, "drop": self.teacher_test() - found}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a table: a method in a case.

    Attributes:
        network: whose teacher the entry starts from.
        case: what all methods of the case have in common: ``95 % sparse, 5 epochs``.
        method: ``kondense ...`` for ours, the peer's name otherwise.
        run: does the work and returns the figures by name.
    """

    network: str
    case: str
    method: str
    run: Callable[[Setting], dict[str, float]]


def test_accuracy(module: torch.nn.Module, dataset: Dataset) -> float:
    """Return the accuracy on the test split, %."""
    return _percent(module, dataset.test, dataset)


def validation_accuracy(module: torch.nn.Module, dataset: Dataset) -> float:
    """Return the accuracy on the validation split, %."""
    return _percent(module, dataset.validation, dataset)


def _percent(module: torch.nn.Module, split: Split, dataset: Dataset) -> float:
    return 100.0 * accuracy(predict(module.eval(), split, dataset), split.labels)


def prepare(cache: Path, profile_name: str, network: str, seed: int) -> Setting:
    """Return the setting of an entry; data set and teacher are made once and kept under ``cache``."""
    profile = PROFILES[profile_name]
    images = f"{profile.dataset}-{profile.limit}" if profile.limit else profile.dataset
    dataset_dir, teacher_dir = cache / images, cache / profile_name / f"{network}-{seed}"
    if not dataset_dir.exists():
        data_prep(DataPrepConfig(dataset_name=profile.dataset, limit=profile.limit), dataset_dir=dataset_dir)
    if not teacher_dir.exists():
        print(f"training the teacher {network}, seed {seed}", flush=True)
        config = TrainConfig(network=network, epochs=profile.teacher_epochs[network], seed=seed, device=profile.device)
        train(config, dataset_dir=dataset_dir, model_dir=teacher_dir)
    directory = Path(tempfile.mkdtemp(prefix="kondense-benchmark-"))
    return Setting(profile, seed, dataset_dir, teacher_dir, directory)
