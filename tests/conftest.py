"""Fixtures that tests of every kind share."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kondense.logging import to_stdout

from tests.support.data_makers import make_cifar10, make_cifar100, make_digits, make_fashion_mnist, make_image_folder
from tests.support.warm import Warm, warm
from tests.support.workers import collect_rarely, dearest_first, is_worker, limit_memory


def pytest_configure(config: pytest.Config) -> None:
    """Bound the memory of a worker, so that a test that takes it all fails by its name and alone."""
    if is_worker(config):
        limit_memory()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Hand out the files that take most at first."""
    if is_worker(config):
        items[:] = dearest_first(items, config.rootpath)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare a worker the repeated look at all modules."""
    if is_worker(session.config):
        collect_rarely()


@pytest.fixture
def log_on_stdout() -> Iterator[None]:
    """Print the lines of Kondense's logger, as commands and containers do."""
    with to_stdout():
        yield


@pytest.fixture(scope="module")
def quick_yaml() -> Iterator[None]:
    """Let KFP write and read its packages with libyaml, for modules with many of them: a tenth of the time."""
    safe, dumper = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CDumper", yaml.Dumper)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "safe_load", functools.partial(yaml.load, Loader=safe))
        patch.setattr(yaml, "safe_load_all", functools.partial(yaml.load_all, Loader=safe))
        patch.setattr(yaml, "dump_all", functools.partial(yaml.dump_all, Dumper=dumper))
        yield


@pytest.fixture(scope="session")
def warm_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A process with the large libraries, from which the stages of all tests of a worker may be forked."""
    with warm(tmp_path_factory.mktemp("warm")) as started:
        yield started


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Dataset artifact of scikit-learn's digits: 1,318/120/359 images of 1x8x8, 10 classes. Read only."""
    return make_digits(tmp_path_factory.mktemp("digits") / "dataset")


@pytest.fixture(scope="session")
def digits16_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits at 16x16 pixels, the least that the LeNets take. Read only."""
    return make_digits(tmp_path_factory.mktemp("digits16") / "dataset", image_size=16)


@pytest.fixture
def fashion_mnist_dir(tmp_path: Path) -> Path:
    """A directory with 60 + 20 random images in Fashion-MNIST's files."""
    return make_fashion_mnist(tmp_path / "fashion-mnist")


@pytest.fixture
def cifar10_dir(tmp_path: Path) -> Path:
    """A directory with 100 + 20 random images in CIFAR-10's files."""
    return make_cifar10(tmp_path)


@pytest.fixture
def cifar100_dir(tmp_path: Path) -> Path:
    """A directory with 200 + 100 random images in CIFAR-100's files."""
    return make_cifar100(tmp_path)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with 12 random colour images of 10x10 for each of the classes cat and dog."""
    return make_image_folder(tmp_path / "images")
