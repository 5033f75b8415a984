"""Data sets of a program's own arrays, DataLoaders, folders and stores."""

import numpy as np
import pytest
import torch
from kondense.data.dataset import SPLITS, Dataset, dataset_digest
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.errors import InputError
from kondense.files import ArtifactError
from torch.utils.data import DataLoader, TensorDataset

RNG = np.random.default_rng(0)
IMAGES_NCHW = RNG.integers(0, 256, (60, 3, 8, 9), np.uint8)
LABELS_N = np.arange(60) % 3


def test_given_splits_keep_their_order():
    pairs = {name: (IMAGES_NCHW[start : start + 20], LABELS_N[start : start + 20]) for name, start in
             zip(SPLITS, (0, 20, 40), strict=True)}  # fmt: skip
    dataset = Dataset.from_arrays(**pairs, classes=["a", "b", "c"], name="toys", seed=3)
    for name in ("validation", "test"):
        assert np.array_equal(dataset.split(name).images, pairs[name][0])
        assert np.array_equal(dataset.split(name).labels, pairs[name][1])
    order = np.random.default_rng(3).permutation(20)
    assert np.array_equal(dataset.train.images, pairs["train"][0][order])
    assert (dataset.name, dataset.classes, dataset.seed) == ("toys", ("a", "b", "c"), 3)
    assert repr(dataset) == "Dataset(toys: 3 classes, images [3, 8, 9], 20 train, 20 validation, 20 test)"


def test_missing_splits_are_cut_with_the_seed():
    datasets = [Dataset.from_arrays((IMAGES_NCHW, LABELS_N), seed=seed) for seed in (0, 0, 1)]
    assert [len(datasets[0].split(name)) for name in SPLITS] == [44, 4, 12]
    assert torch.equal(datasets[0].test.images, datasets[1].test.images)
    assert not torch.equal(datasets[0].test.images, datasets[2].test.images)
    seen = {bytes(image.numpy()) for name in SPLITS for image in datasets[0].split(name).images}
    assert seen == {bytes(image) for image in IMAGES_NCHW}
    assert datasets[0].classes == ("0", "1", "2")
    sizes = Dataset.from_arrays((IMAGES_NCHW, LABELS_N), validation_size=7, test_fraction=0.5)
    assert [len(sizes.split(name)) for name in SPLITS] == [23, 7, 30]


@pytest.mark.parametrize(
    "images",
    [
        torch.from_numpy(IMAGES_NCHW),
        IMAGES_NCHW.transpose(0, 2, 3, 1),
        IMAGES_NCHW / 255,
        (IMAGES_NCHW / 255).astype(np.float16),
        torch.from_numpy(IMAGES_NCHW).float().div(255).requires_grad_(),
    ],
    ids=["tensor", "channels last", "float64", "float16", "float tensor"],
)
def test_every_form_of_the_same_images_gives_the_same_data_set(images):
    expected = Dataset.from_arrays((IMAGES_NCHW, LABELS_N))
    dataset = Dataset.from_arrays((images, torch.from_numpy(LABELS_N).int()))
    for name in SPLITS:
        assert torch.equal(dataset.split(name).images, expected.split(name).images)
        assert torch.equal(dataset.split(name).labels, expected.split(name).labels)


def test_images_without_channels_are_grey():
    assert Dataset.from_arrays((IMAGES_NCHW[:, 0], LABELS_N)).shape == (1, 8, 9)
    assert Dataset.from_arrays((torch.rand(60, 8, 8).bfloat16(), LABELS_N.tolist())).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": IMAGES_NCHW}, r"train must be a pair \(images, labels\), but got a ndarray"),
        ({"train": (IMAGES_NCHW / 1.0, LABELS_N)}, r"train images must be uint8, or float in \[0, 1\], but got 255"),
        ({"train": (IMAGES_NCHW / 255 - 0.5, LABELS_N)}, r"float in \[0, 1\], but got -0.5: undo their normalisation"),
        ({"train": (np.full((6, 8, 8), np.nan), LABELS_N[:6])}, r"float in \[0, 1\], but got nan"),
        ({"train": (IMAGES_NCHW.astype(int), LABELS_N)}, "must be uint8, or float in .*, but got int64"),
        ({"train": (IMAGES_NCHW[:, :2], LABELS_N)}, r"with 1 or 3 channels, but got \[60, 2, 8, 9\]"),
        ({"train": (IMAGES_NCHW[:0], LABELS_N[:0])}, r"but got \[0, 3, 8, 9\]"),
        ({"train": ([[1], [1, 2]], LABELS_N)}, "images and labels must be arrays, but: "),
        (
            {"train": (IMAGES_NCHW, LABELS_N[:59])},
            "train must have one label per image, but got 60 images and 59 labels",
        ),
        ({"train": (IMAGES_NCHW, LABELS_N / 1.0)}, r"train labels must be integers \[N\], but got float64 \[60\]"),
        ({"train": (IMAGES_NCHW, np.eye(60, dtype=int))}, r"labels must be integers \[N\], but got int64 \[60, 60\]"),
        ({"train": (IMAGES_NCHW, LABELS_N - 1)}, "train labels must be 0 or greater, but got -1"),
        ({"train": (IMAGES_NCHW, LABELS_N * 0)}, "there must be at least 2 classes, but got 1"),
        (
            {"train": (IMAGES_NCHW, LABELS_N), "classes": ["a", "b"]},
            r"train labels of data must be in \[0, 2\), but got 2",
        ),
        (
            {"train": (IMAGES_NCHW, LABELS_N), "test": (IMAGES_NCHW[:, :, :4], LABELS_N)},
            r"test images must be \[3, 8, 9\] as train's, but got \[3, 4, 9\]",
        ),
        (
            {"train": (IMAGES_NCHW, LABELS_N), "validation_size": 48},
            "validation_size must be below the number of training",
        ),
    ],
)
def test_bad_arrays_are_refused_with_the_rule_and_the_value(arguments, message):
    with pytest.raises(InputError, match=message):
        Dataset.from_arrays(**arguments)


def loader(images, labels=None, batch_size=16):
    tensors = [torch.as_tensor(values) for values in (images, labels) if values is not None]
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size)


def test_loaders_give_what_their_arrays_give():
    parts = [slice(0, 40), slice(40, 50), slice(50, 60)]
    arrays = Dataset.from_arrays(*((IMAGES_NCHW[part], LABELS_N[part]) for part in parts), name="toys")
    loaders = Dataset.from_loader(*(loader(IMAGES_NCHW[part] / 255, LABELS_N[part]) for part in parts), name="toys")
    assert torch.equal(arrays.train.images, loaders.train.images)
    assert torch.equal(arrays.test.labels, loaders.test.labels)
    assert arrays.mean == loaders.mean


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (loader(IMAGES_NCHW), r"train batch 0 must be a pair \(images, labels\), but got a list of 1"),
        (DataLoader(torch.from_numpy(IMAGES_NCHW)), "train batch 0 must be a pair .*, but got a Tensor"),
        (
            loader(IMAGES_NCHW / 255 * 2 - 1, LABELS_N),
            r"train batch 0 images must be uint8, or float in \[0, 1\], but got -1",
        ),
        (
            [(IMAGES_NCHW, LABELS_N), (IMAGES_NCHW[:, :, :7], LABELS_N)],
            r"train batch 1 must have images of \[3, 8, 9\] as batch 0, but got \[3, 7, 9\]",
        ),
        ([], "train must yield at least one batch, but yields none"),
    ],
)
def test_bad_loaders_are_refused(batches, message):
    with pytest.raises(InputError, match=message):
        Dataset.from_loader(batches)


def test_a_data_set_of_torch_is_no_loader_and_the_way_out_is_told():
    images = TensorDataset(torch.zeros(8, 1, 4, 4), torch.arange(8) % 2)
    with pytest.raises(InputError, match=r"train batch 0 .* but has one label: wrap a data set as .*DataLoader\("):
        Dataset.from_loader(images)


@pytest.mark.parametrize("size", [16.5, "64", True, (8, 8, 8), (8, 1.5), None])
@pytest.mark.parametrize("name", ["image_size", "resize"])
def test_a_size_that_is_none_is_refused_by_its_name(image_folder, name, size):
    with pytest.raises(InputError, match=rf"{name} must be a whole number of pixels, or \(height, width\), but got"):
        Dataset.from_folder(image_folder, **{"image_size": 8, name: size})


def test_a_size_may_be_a_number_of_numpy(image_folder):
    assert Dataset.from_folder(image_folder, image_size=np.int64(8)).shape[1:] == (8, 8)


def test_a_folder_is_what_data_prep_makes_of_it(image_folder, tmp_path):
    config = DataPrepConfig(dataset_name="folder", source=str(image_folder), image_size=8, seed=2)
    run(config, dataset_dir=tmp_path / "stage")
    Dataset.from_folder(image_folder, image_size=8, seed=2).save(tmp_path / "library")
    assert dataset_digest(tmp_path / "library") == dataset_digest(tmp_path / "stage")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_saved_data_set_is_read_back(tmp_path, scheme):
    dataset = Dataset.from_arrays((IMAGES_NCHW, LABELS_N))
    dataset.save(tmp_path / "dataset")
    stored = Dataset.from_store(f"{scheme}{tmp_path}/dataset")
    assert (stored.mean, stored.std, stored.classes) == (dataset.mean, dataset.std, dataset.classes)
    assert torch.equal(stored.train.images, dataset.train.images)
    with pytest.raises(ArtifactError, match="must hold a file dataset.json"):
        Dataset.from_store(f"{scheme}{tmp_path}/none")


def test_names_of_classes_differ_and_labels_without_images_are_told(caplog):
    with pytest.raises(InputError, match="classes must have different names, but 'b' stands twice"):
        Dataset.from_arrays((IMAGES_NCHW, LABELS_N), classes=["a", "b", "b"])
    with caplog.at_level("WARNING", logger="kondense"):
        dataset = Dataset.from_arrays((IMAGES_NCHW, LABELS_N + 1))
    assert dataset.classes == ("0", "1", "2", "3")
    assert "the labels go up to 3, but no image has label 0" in caplog.text


@pytest.mark.parametrize("fraction", [0, 1, 20, -0.5])
def test_the_fraction_of_the_test_split_is_checked(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"^test_fraction must be in \(0, 1\), but got {fraction}\.$"):
        Dataset.from_arrays((IMAGES_NCHW, LABELS_N), test_fraction=fraction)
