import contextlib
import dataclasses
import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from kondense.data.dataset import Dataset, Split, dataset_digest, load_dataset, save_dataset
from kondense.files import ArtifactError, sha256
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional

FULL_DISK = """
import resource, sys
from pathlib import Path
from kondense.data.dataset import load_dataset, save_dataset
dataset = load_dataset(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))
try:
    save_dataset(Path(sys.argv[2]), dataset)
except OSError as error:
    print(error)
"""


def split(count, seed, classes=3):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 2, 4, 4), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % classes)


@pytest.fixture
def dataset():
    return Dataset(
        name="toy",
        classes=("a", "b", "ß"),
        mean=(0.25, 0.5),
        std=(0.125, 0.3),
        seed=3,
        source="made by the test",
        train=split(9, 0),
        validation=split(4, 1),
        test=split(5, 2),
    )


@pytest.fixture
def directory(dataset, tmp_path):
    save_dataset(tmp_path / "dataset", dataset)
    return tmp_path / "dataset"


def rewrite(directory, **changes):
    """Change dataset.json, with digests that fit the files."""
    path = directory / "dataset.json"
    content = json.loads(path.read_text()) | changes
    content["files"] = changes.get("files", {file.name: sha256(file) for file in directory.glob("*.safetensors")})
    path.write_text(json.dumps(content))


def test_a_dataset_comes_back_as_it_was(dataset, directory):
    found = load_dataset(directory)
    for field in dataclasses.fields(Dataset):
        before, after = getattr(dataset, field.name), getattr(found, field.name)
        if isinstance(before, Split):
            assert torch.equal(before.images, after.images)
            assert torch.equal(before.labels, after.labels)
        else:
            assert before == after
    assert found.shape == (2, 4, 4)
    assert len(found.split("validation")) == 4


def test_the_same_dataset_has_the_same_digest(dataset, directory, tmp_path):
    save_dataset(tmp_path / "again", dataset)
    assert dataset_digest(tmp_path / "again") == dataset_digest(directory) == sha256(directory / "dataset.json")
    save_dataset(tmp_path / "other", dataclasses.replace(dataset, test=split(5, 3)))
    assert dataset_digest(tmp_path / "other") != dataset_digest(directory)


def test_images_are_normalised_as_torchvision_does(dataset):
    expected = functional.normalize(dataset.train.images.float() / 255, list(dataset.mean), list(dataset.std))
    torch.testing.assert_close(dataset.normalise(dataset.train.images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (
            torch.zeros(2, 2, 4, 4),
            torch.zeros(2).long(),
            r"train images must be uint8 \[N, C, H, W\], but got torch.float32",
        ),
        (torch.zeros(2, 4, 4).byte(), torch.zeros(2).long(), r"but got torch.uint8 \[2, 4, 4\]"),
        (
            torch.zeros(2, 2, 4, 4).byte(),
            torch.zeros(2).int(),
            r"train labels must be int64 \[2\], but got torch.int32",
        ),
        (torch.zeros(2, 2, 4, 4).byte(), torch.zeros(3).long(), r"but got torch.int64 \[3\]"),
        (torch.zeros(0, 2, 4, 4).byte(), torch.zeros(0).long(), "train must hold at least one image, but got 0"),
        (torch.zeros(2, 2, 4, 4).byte(), torch.tensor([0, 3]), r"train labels must be in \[0, 3\), but got 3"),
        (torch.zeros(2, 2, 4, 4).byte(), torch.tensor([-1, 2]), r"train labels must be in \[0, 3\), but got -1"),
    ],
)
def test_images_and_labels_must_fit(dataset, tmp_path, images, labels, text):
    with pytest.raises(ValueError, match=text):
        save_dataset(tmp_path / "dataset", dataclasses.replace(dataset, train=Split(images, labels)))
    assert list(tmp_path.iterdir()) == []


def damages(whole):
    for position in range(0, len(whole), max(1, len(whole) // 40)):
        yield whole[:position]
        yield whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]


def test_every_truncation_and_change_of_a_file_is_noticed(directory):
    path = directory / "train.safetensors"
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="damaged or changed"):
            load_dataset(directory)


def test_a_damaged_description_is_read_or_an_artifact_error(directory):
    # It is the root of the digests, so a change that leaves it well-formed shows only in its own digest.
    path = directory / "dataset.json"
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with contextlib.suppress(ArtifactError):
            load_dataset(directory)


@pytest.mark.parametrize("name", ["dataset.json", "train.safetensors", "validation.safetensors", "test.safetensors"])
def test_a_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(ArtifactError, match=f"must hold a file {name}, but it is missing"):
        load_dataset(directory)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format_version": 3}, "must have format_version 1 or 2, but got 3"),
        ({"format_version": 2}, "must name shards if its format_version is 2"),
        ({"files": {}}, "must have a digest of its file train.safetensors"),
        ({"files": {"../x": "0"}}, "must have a digest of its file train.safetensors"),
        ({"files": []}, "files must be dict"),
        ({"classes": ["a", "b"]}, r"labels must be in \[0, 2\), but got 2"),
        ({"classes": "abc"}, "classes must be list"),
        ({"shape": [1, 4, 4]}, r"must have a shape \[C, H, W\] with mean and std \[C\]"),
        ({"shape": [2, 4, 5]}, r"images must be \[9, 2, 4, 5\], but got \[9, 2, 4, 4\]"),
        ({"splits": {"train": 8, "validation": 4, "test": 5}}, r"images must be \[8, 2, 4, 4\]"),
        ({"mean": ["x", "y"]}, "mean.* must be float"),
        ({"std": [0.0, 1.0]}, r"std.* must be in \(0, inf\), but got 0.0"),
        ({"seed": None}, "seed must be int"),
    ],
)
def test_a_description_that_does_not_fit_is_an_error(directory, changes, text):
    rewrite(directory, **changes)
    with pytest.raises(ArtifactError, match=text) as caught:
        load_dataset(directory)
    assert "\n" not in str(caught.value)


def test_a_pickle_in_place_of_images_is_refused(directory):
    torch.save({"images": torch.zeros(1)}, directory / "train.safetensors")
    rewrite(directory)
    with pytest.raises(ArtifactError, match="train.safetensors must be in the safetensors format"):
        load_dataset(directory)
    (directory / "train.safetensors").write_bytes(pickle.dumps({}))
    rewrite(directory)
    with pytest.raises(ArtifactError, match="train.safetensors must be in the safetensors format"):
        load_dataset(directory)


def test_tensors_that_are_no_split_are_refused(directory):
    save_file({"images": torch.zeros(9, 2, 4, 4).byte()}, directory / "train.safetensors")
    rewrite(directory)
    with pytest.raises(ArtifactError, match="train.safetensors is not a split of a dataset: 'labels'"):
        load_dataset(directory)


def test_a_full_disk_is_one_line_and_keeps_what_was_there(directory, digits_dir, tmp_path):
    shutil.copytree(directory, tmp_path / "old")
    command = [sys.executable, "-c", FULL_DISK, str(digits_dir), str(tmp_path / "old")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = f"[Errno 27] File too large while writing {tmp_path / 'old'}; nothing was kept\n"
    assert result.stdout == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "old"]
    assert dataset_digest(tmp_path / "old") == dataset_digest(directory)
