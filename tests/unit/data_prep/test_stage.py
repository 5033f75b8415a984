import dataclasses
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from kondense.data.collection import Source
from kondense.data.dataset import dataset_digest, load_dataset
from kondense.data_prep.config import SOURCES, DataPrepConfig
from kondense.data_prep.stage import run
from kondense.files import file_digests

from tests.support.data_makers import make_digits

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def test_digits_are_scikit_learns(digits_dir):
    dataset = load_dataset(digits_dir)
    reference = sklearn.datasets.load_digits()
    assert dataset.classes == tuple("0123456789")
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [1318, 120, 359]
    order = np.random.default_rng(0).permutation(1797)
    parts = (dataset.test, dataset.validation, dataset.train)
    images = torch.cat([part.images for part in parts])[:, 0].double() * 16 / 255
    assert np.array_equal(images.round().numpy(), reference.images[order])
    assert np.array_equal(torch.cat([part.labels for part in parts]).numpy(), reference.target[order])


def test_digits_fit_the_default_network(tmp_path):
    assert load_dataset(make_digits(tmp_path / "dataset", image_size=0)).shape == (1, 16, 16)


def test_mean_and_std_are_of_the_training_images(cifar10_dir, tmp_path):
    run(DataPrepConfig(dataset_name="cifar10", source=str(cifar10_dir)), dataset_dir=tmp_path / "dataset")
    dataset = load_dataset(tmp_path / "dataset")
    pixels = dataset.train.images.double() / 255
    assert dataset.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_a_constant_channel_normalises_to_zero(tmp_path):
    from kondense.data.pixels import mean_and_std

    images = np.full((5, 2, 3, 3), 51, np.uint8)
    images[0, 1] = 0
    mean, std = mean_and_std(images)
    assert (mean[0], std[0]) == (pytest.approx(0.2), 1.0)
    assert std[1] == pytest.approx(float((images[:, 1] / 255).std()))


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "cifar10", "cifar100", "folder"])
def test_the_same_arguments_give_the_same_bytes(request, tmp_path, name):
    fixtures = {"fashion_mnist": "fashion_mnist_dir", "folder": "image_folder"}
    source = "" if name == "digits" else str(request.getfixturevalue(fixtures.get(name, f"{name}_dir")))
    config = DataPrepConfig(dataset_name=name, source=source, seed=3)
    for directory in ("first", "second"):
        run(config, dataset_dir=tmp_path / directory)
    assert file_digests(tmp_path / "first") == file_digests(tmp_path / "second")
    run(dataclasses.replace(config, seed=4), dataset_dir=tmp_path / "third")
    assert dataset_digest(tmp_path / "third") != dataset_digest(tmp_path / "first")
    assert set(file_digests(tmp_path / "third").values()).isdisjoint(
        set(file_digests(tmp_path / "first").values())
    ) or (
        name not in ("digits", "folder")  # the others keep the test images they come with
    )


def test_the_place_that_served_changes_nothing(monkeypatch, fashion_mnist_dir, tmp_path):
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "fashion-mnist").symlink_to(fashion_mnist_dir)
        monkeypatch.setenv("KONDENSE_DATA", str(tmp_path / directory))
        run(DataPrepConfig(), dataset_dir=tmp_path / directory / "dataset")
    assert dataset_digest(tmp_path / "one" / "dataset") == dataset_digest(tmp_path / "two" / "dataset")


def test_the_splits_are_disjoint_and_whole(fashion_mnist_dir, tmp_path):
    run(DataPrepConfig(source=str(fashion_mnist_dir)), dataset_dir=tmp_path / "dataset")
    dataset = load_dataset(tmp_path / "dataset")
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [50, 10, 20]
    seen = {bytes(image.numpy()) for name in ("train", "validation") for image in dataset.split(name).images}
    assert len(seen) == 60
    assert dataset.test.labels.tolist() == [index % 10 for index in range(20)]


@pytest.mark.parametrize(("limit", "sizes"), [(24, [22, 2, 20]), (7, [6, 1, 7]), (1000, [50, 10, 20])])
def test_limit_bounds_training_and_test_images(fashion_mnist_dir, tmp_path, limit, sizes):
    run(DataPrepConfig(source=str(fashion_mnist_dir), limit=limit), dataset_dir=tmp_path / "dataset")
    dataset = load_dataset(tmp_path / "dataset")
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == sizes


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"validation_size": 60}, r"validation_size must be below the number of training images \(60\), but got 60"),
        ({"limit": 1}, "must have at least 2 images together, but 1 is left"),
        ({"limit": 10, "validation_size": 10}, r"images \(10\), but got 10"),
    ],
)
def test_too_few_images_are_an_error(fashion_mnist_dir, tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        run(DataPrepConfig(source=str(fashion_mnist_dir), **options), dataset_dir=tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"dataset_name": "mnist"},
            "dataset_name must be one of cifar10, cifar100, digits, fashion_mnist, folder, but got",
        ),
        ({"channels": 2}, "channels must be one of 0, 1, 3, but got 2"),
        ({"test_fraction": 1.0}, r"test_fraction must be in \(0, 1\), but got 1.0"),
        ({"validation_size": -1}, "validation_size must be in"),
        ({"dataset_name": "folder"}, "source must be the folder of images"),
        ({"dataset_name": "digits", "source": "x"}, "source must be empty for digits"),
    ],
)
def test_a_wrong_parameter_is_an_error(options, text):
    with pytest.raises(ValueError, match=text):
        DataPrepConfig(**options)


def test_a_source_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="source must be a directory or a URI .*, but got .*/absent"):
        run(DataPrepConfig(source=str(tmp_path / "absent")), dataset_dir=tmp_path / "dataset")


def test_size_and_channels_can_be_asked_for(tmp_path):
    dataset = load_dataset(make_digits(tmp_path / "dataset", image_size=32, channels=3))
    assert dataset.shape == (3, 32, 32)
    assert torch.equal(dataset.train.images[:, 0], dataset.train.images[:, 2])


def test_grey_is_what_pillow_makes(cifar10_dir, tmp_path):
    from PIL import Image

    for channels in (1, 3):
        config = DataPrepConfig(dataset_name="cifar10", source=str(cifar10_dir), channels=channels)
        run(config, dataset_dir=tmp_path / str(channels))
    grey, colour = (load_dataset(tmp_path / str(channels)).train.images for channels in (1, 3))
    expected = [np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in colour]
    assert np.array_equal(grey[:, 0].numpy(), np.stack(expected))


def test_files_come_from_a_store(monkeypatch, fashion_mnist_dir, cifar10_dir, image_folder, tmp_path):
    for name, source in (("fashion_mnist", fashion_mnist_dir), ("cifar10", cifar10_dir), ("folder", image_folder)):
        (source / "README.txt").write_text("not part of the data")
        metrics = run(DataPrepConfig(dataset_name=name, source=f"file://{source}"), dataset_dir=tmp_path / name)
        assert metrics == run(DataPrepConfig(dataset_name=name, source=str(source)), dataset_dir=tmp_path / "again")
        stored, plain = load_dataset(tmp_path / name), load_dataset(tmp_path / "again")
        assert torch.equal(stored.train.images, plain.train.images)
        assert torch.equal(stored.test.labels, plain.test.labels)
    with pytest.raises(FileNotFoundError, match="holds no file of this data set"):
        run(DataPrepConfig(dataset_name="cifar100", source=f"file://{image_folder}"), dataset_dir=tmp_path / "none")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_the_whole_of_fashion_mnist(tmp_path):
    metrics = run(DataPrepConfig(source=str(DEBIAN)), dataset_dir=tmp_path / "dataset")
    assert metrics == {"train_images": 55000, "validation_images": 5000, "test_images": 10000, "classes": 10}
    dataset = load_dataset(tmp_path / "dataset")
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10
    # The published mean and deviation of all 60,000 training images are 0.2860 and 0.3530.
    assert (dataset.mean[0], dataset.std[0]) == (pytest.approx(0.2860, abs=1e-3), pytest.approx(0.3530, abs=1e-3))


@pytest.mark.parametrize("source", SOURCES.values())
def test_every_data_set_has_a_source(source):
    assert isinstance(pkgutil.resolve_name(source), Source)


def test_the_config_needs_no_torch():
    code = "import sys, kondense.data_prep.config; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchvision_is_not_imported_to_read_files(digits_dir):
    code = (
        "import sys; from pathlib import Path; from kondense.data_prep import stage;"
        "from kondense.data_prep.config import DataPrepConfig as C;"
        "stage.run(C(dataset_name='digits', image_size=8), dataset_dir=Path(sys.argv[1]));"
        "sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(digits_dir.parent / "again")], check=True)
    assert file_digests(digits_dir.parent / "again") == file_digests(digits_dir)
