import json
import os
import tarfile

import numpy as np
import pytest
import torch
from kondense.data.dataset import SPLITS, Dataset, dataset_digest, load_dataset
from kondense.data.shards import ShardError
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.files import ArtifactError, file_digests
from PIL import Image

from tests.support.data_makers import make_image_folder


def prepared(directory, **options):
    run(DataPrepConfig(dataset_name="digits", image_size=8, **options), dataset_dir=directory)
    return load_dataset(directory)


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("tensors") / "data", storage="tensors")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards") / "data"
    prepared(directory, storage="shards", shard_bytes=200_000)
    return directory


@pytest.fixture
def small(tmp_path):
    """A fresh data set of two shards or more per split, whose shards a test may damage."""
    source = make_image_folder(tmp_path / "images", size=(12, 10))
    config = DataPrepConfig(dataset_name="folder", source=str(source), storage="shards", shard_bytes=4096)
    run(config, dataset_dir=tmp_path / "data")
    return tmp_path / "data"


def first_shard(directory, split="train"):
    return min((directory / "shards").glob(f"{split}-*.tar"))


def test_images_labels_and_statistics_are_those_of_tensors(tensors, digits):
    shards = load_dataset(digits)
    assert (shards.mean, shards.std, shards.classes, shards.shape) == (
        tensors.mean,
        tensors.std,
        tensors.classes,
        tensors.shape,
    )
    for name in SPLITS:
        assert torch.equal(shards.split(name).labels, tensors.split(name).labels)
        assert torch.equal(shards.split(name).images[:], tensors.split(name).images)
    assert len(shards.train.images.shards.files) > 2


def test_index_slices_and_parts_are_those_of_a_tensor(tensors, digits):
    images, expected = load_dataset(digits).test.images, tensors.test.images
    index = torch.tensor([300, 0, 7, 7])
    assert torch.equal(images[index], expected[index])
    assert torch.equal(images[-3:], expected[-3:])
    assert [len(part) for part in images.split(100)] == [len(part) for part in expected.split(100)]
    assert torch.equal(torch.cat(list(images.split(100))), expected)
    assert images.shape == expected.shape
    assert len(images) == len(expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_are_decoded_to_the_bit_as_for_tensors(tmp_path, mode):
    source = make_image_folder(tmp_path / "images", size=(13, 9), mode=mode)
    options = {"dataset_name": "folder", "source": str(source), "image_size": 8, "resize": 9}
    found = {}
    for storage in ("tensors", "shards"):
        run(DataPrepConfig(**options, storage=storage), dataset_dir=tmp_path / storage)
        found[storage] = load_dataset(tmp_path / storage)
    for name in SPLITS:
        assert torch.equal(found["shards"].split(name).images[:], found["tensors"].split(name).images)


def test_auto_takes_shards_above_the_threshold(tmp_path):
    images = 1797 * 64
    kept = prepared(tmp_path / "kept", max_tensor_bytes=images)
    assert isinstance(kept.train.images, torch.Tensor)
    streamed = prepared(tmp_path / "streamed", max_tensor_bytes=images - 1)
    assert not isinstance(streamed.train.images, torch.Tensor)


def test_the_same_arguments_give_the_same_bytes(digits, tmp_path):
    prepared(tmp_path / "again", storage="shards", shard_bytes=200_000)
    assert file_digests(tmp_path / "again") == file_digests(digits)


def test_shards_are_tars_of_pictures_and_labels(small):
    with tarfile.open(first_shard(small)) as archive:
        names = archive.getnames()
        label = archive.extractfile(names[0]).read()
        picture = np.asarray(Image.open(archive.extractfile(names[1])))
    assert names[:2] == ["000000000.cls", "000000000.ppm"]
    dataset = load_dataset(small)
    assert int(label) == dataset.train.labels[0]
    assert np.array_equal(picture.transpose(2, 0, 1), dataset.train.images[:1][0].numpy())


def test_copies_are_left_out_as_from_tensors(tmp_path):
    source = make_image_folder(tmp_path / "images")
    for name in ("cat", "dog"):
        pictures = sorted((source / name).iterdir())
        for path in pictures[1::2]:
            path.write_bytes(pictures[0].read_bytes())
    found = {}
    for storage in ("tensors", "shards"):
        config = DataPrepConfig(dataset_name="folder", source=str(source), duplicates="drop", storage=storage)
        run(config, dataset_dir=tmp_path / storage)
        found[storage] = load_dataset(tmp_path / storage)
    one, other = found["shards"], found["tensors"]
    assert one.skipped == other.skipped != {}
    assert (one.mean, one.std) == (other.mean, other.std)
    for name in SPLITS:
        assert torch.equal(one.split(name).images[:], other.split(name).images)


def test_a_saved_copy_is_whole(small, tmp_path):
    load_dataset(small).save(tmp_path / "copy")
    assert file_digests(tmp_path / "copy") == file_digests(small)
    assert dataset_digest(tmp_path / "copy") == dataset_digest(small)


def damage(path, kind):
    content = path.read_bytes()
    if kind == "lost":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "truncated at a record":
        path.write_bytes(content[:-10240])
    elif kind == "flipped":
        path.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])


@pytest.mark.parametrize("kind", ["lost", "truncated", "truncated at a record", "flipped"])
def test_no_image_of_a_bad_shard_is_served(small, kind):
    dataset, path = load_dataset(small), first_shard(small)
    damage(path, kind)
    with pytest.raises(ShardError, match=path.name) as caught:
        dataset.train.images[:1]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["lost", "truncated", "flipped"])
def test_a_shard_changed_under_way_is_found(small, kind):
    dataset, path = load_dataset(small), first_shard(small)
    dataset.train.images[:1]
    damage(path, kind)
    with pytest.raises(ShardError, match=path.name):
        dataset.train.images[:1]


def test_a_shard_written_again_with_the_same_bytes_is_taken(small):
    dataset, path = load_dataset(small), first_shard(small)
    before = dataset.train.images[:1]
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert torch.equal(dataset.train.images[:1], before)


def test_shards_of_another_version_are_refused(small, tmp_path):
    source = make_image_folder(tmp_path / "others", size=(12, 10))
    picture = sorted((source / "cat").iterdir())[0]
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(picture)
    config = DataPrepConfig(dataset_name="folder", source=str(source), storage="shards", shard_bytes=4096)
    run(config, dataset_dir=tmp_path / "new")
    for path in (small / "shards").iterdir():
        path.unlink()
    for path in (tmp_path / "new" / "shards").iterdir():
        os.link(path, small / "shards" / path.name)
    with pytest.raises(ArtifactError, match="digests of"):
        load_dataset(small)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda shards: shards["files"]["train"][0].__setitem__(0, "../x.tar"), "must hold only files"),
        (lambda shards: shards["files"]["train"][0].__setitem__(1, 100), "place each image in a shard"),
        (lambda shards: shards["files"].pop("train"), "must hold only files"),
        (lambda shards: shards["files"]["train"][0].__setitem__(2, "x"), "name, size and sha256"),
    ],
)
def test_an_index_that_names_no_place_is_refused(small, change, text):
    description = json.loads((small / "dataset.json").read_text())
    change(description["shards"])
    (small / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(ArtifactError, match=text):
        load_dataset(small)


def test_shuffling_keeps_to_windows_and_loses_nothing(digits):
    images = load_dataset(digits).train.images
    shard_N = images.place_N3[:, 0]
    images.window_bytes = 2 * max(file.size for file in images.shards.files)
    order = images.shuffled(torch.Generator().manual_seed(1))
    assert torch.equal(order.sort().values, torch.arange(len(images)))
    windows = [set(part.tolist()) for part in shard_N[order].split(len(images) // 3)]
    changes = int((shard_N[order].diff() != 0).sum())
    assert changes > len(images) // 4  # mixed within a window
    first = shard_N[order][: int((shard_N == shard_N[order][0]).sum())].unique()
    assert len(first) <= 2
    assert windows
    assert not torch.equal(order, images.shuffled(torch.Generator().manual_seed(2)))


def test_a_data_set_in_memory_and_one_in_shards_have_one_repr(tensors, digits):
    assert repr(load_dataset(digits)) == repr(tensors)
    assert isinstance(load_dataset(digits), Dataset)
