"""What users bring: hidden and junk entries, unreadable pictures, copies across splits, rare classes, odd names."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from kondense.data.dataset import Dataset, dataset_digest, load_dataset
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from PIL import Image

from tests.support.data_makers import make_image_folder

JUNK = (
    ".ipynb_checkpoints/000-checkpoint.png", ".thumbnails/000.png", ".git/lfs/000.png", "__MACOSX/000.png",
    "__MACOSX/cat/000.png", "@eaDir/000.png/SYNOPHOTO_THUMB_M.png", "._000.png", ".DS_Store", "Thumbs.db",
    "desktop.ini", "deep/.hidden/000.png", "$RECYCLE.BIN/000.png", ".000.png", "notes.txt", "000.png.json",
)  # fmt: skip


def prepared(source, directory, **options):
    metrics = run(DataPrepConfig(dataset_name="folder", source=str(source), **options), dataset_dir=directory)
    return metrics, load_dataset(directory)


def copied(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@pytest.mark.parametrize("entry", JUNK)
def test_hidden_entries_and_those_of_tools_are_no_images(tmp_path, entry):
    source = make_image_folder(tmp_path / "images")
    _, expected = prepared(source, tmp_path / "before")
    picture = source / "cat" / "000.png"
    for place in ("cat", "dog") if entry.startswith("deep") else ("cat", "dog", "."):
        copied(picture, source / place / entry)
    for number, address in enumerate((str(source), f"file://{source}")):
        _, found = prepared(address, tmp_path / str(number))
        assert torch.equal(found.train.images, expected.train.images)
        assert torch.equal(found.test.images, expected.test.images)


def test_a_class_without_images_is_an_error_in_a_folder_and_in_a_bucket(tmp_path):
    source = make_image_folder(tmp_path / "images")
    (source / "empty").mkdir()
    (source / "empty" / "notes.txt").write_text("to come")
    for address in (str(source), f"file://{source}"):
        with pytest.raises(ValueError, match="empty must hold images"):
            prepared(address, tmp_path / "dataset")


def test_folders_below_a_class_count(tmp_path):
    source = make_image_folder(tmp_path / "images")
    (source / "cat" / "session 2").mkdir()
    for index in range(6):
        (source / "cat" / f"{index:03}.png").rename(source / "cat" / "session 2" / f"{index}.png")
    metrics, _ = prepared(source, tmp_path / "dataset")
    assert metrics["train_images"] + metrics["validation_images"] + metrics["test_images"] == 24


def test_files_that_are_no_images_are_told(tmp_path, caplog):
    source = make_image_folder(tmp_path / "images")
    for index in range(3):
        (source / "cat" / f"{index}.heic").write_bytes(b"x")
    with caplog.at_level(logging.INFO, "kondense"):
        prepared(source, tmp_path / "dataset")
    assert "3 files that are no images left out (3 .heic)" in caplog.text


def damage(source, count=3):
    """Damage pictures in different ways and return their paths."""
    paths = sorted(source.rglob("*.png"))[:: 24 // count][:count]
    for number, path in enumerate(paths):
        content = path.read_bytes()
        path.write_bytes([b"", b"no image", content[: len(content) // 2]][number % 3])
    return paths


def test_all_unreadable_pictures_are_named_at_once(tmp_path):
    source = make_image_folder(tmp_path / "images", size=(30, 30))
    paths = damage(source)
    (source / "dog" / "gone.png").symlink_to(tmp_path / "absent.png")
    (source / "dog" / "folder.png").mkdir()
    with pytest.raises(ValueError, match="4 files cannot be read: ") as caught:
        prepared(source, tmp_path / "dataset", image_size=8)
    text = str(caught.value)
    assert all(str(path) in text for path in paths)
    assert "is empty" in text and "of no known format" in text and "is a link to a missing file" in text
    assert text.endswith("--set data_prep.max_bad=4 leaves them out.") and "\n" not in text
    assert not (tmp_path / "dataset").exists()


def test_the_list_of_unreadable_pictures_is_bounded(tmp_path):
    source = make_image_folder(tmp_path / "images", per_class=100, size=(1, 1))
    for path in source.glob("cat/*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="100 files cannot be read: .*; and 90 more") as caught:
        prepared(source, tmp_path / "dataset")
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize("options", [{}, {"image_size": 8, "channels": 1}])
def test_unreadable_pictures_are_left_out_and_counted_on_request(tmp_path, options):
    source = make_image_folder(tmp_path / "images", size=(30, 30))
    damage(source)
    with pytest.raises(ValueError, match="3 files cannot be read"):
        prepared(source, tmp_path / "refused", max_bad=2, **options)
    metrics, dataset = prepared(source, tmp_path / "dataset", max_bad=3, **options)
    assert metrics["unreadable_images"] == 3
    assert sum(len(dataset.split(name)) for name in ("train", "validation", "test")) == 21
    assert dataset.skipped == {"unreadable": 3}
    assert json.loads((tmp_path / "dataset" / "dataset.json").read_text())["skipped"] == {"unreadable": 3}


def test_nothing_that_can_be_read_is_an_error(tmp_path):
    source = make_image_folder(tmp_path / "images")
    for path in source.rglob("*.png"):
        path.write_bytes(b"no image")
    for options in ({}, {"image_size": 8, "channels": 3}):
        with pytest.raises(ValueError, match="24 files cannot be read|must hold at least one image that can be read"):
            prepared(source, tmp_path / "dataset", max_bad=1000, **options)


def with_copies(tmp_path):
    """Return a folder whose splits share pictures: one as the same file, one as other bytes under another label."""
    for split, count in (("train", 8), ("val", 2), ("test", 3)):
        make_image_folder(tmp_path / split, per_class=count)  # the same random pictures in every split
    for split, seed in (("val", 1), ("test", 2)):
        for path in (tmp_path / split).rglob("*.png"):
            noise = np.random.default_rng([seed, *path.name.encode(), *path.parent.name.encode()])
            Image.fromarray(noise.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(path)
    copied(tmp_path / "train/cat/003.png", tmp_path / "test/cat/copy.png")
    Image.open(tmp_path / "train/dog/004.png").save(tmp_path / "val/cat/copy.png", compress_level=1)
    return tmp_path


def test_copies_across_splits_are_told(tmp_path, caplog):
    source = with_copies(tmp_path / "images")
    metrics, dataset = prepared(source, tmp_path / "dataset")
    assert "duplicate_images" not in metrics and len(dataset.train) == 16
    (record,) = [record for record in caplog.records if "are in" in record.message]
    assert record.levelname == "WARNING"
    text = record.message
    assert "1 of 16 images of train are in test too" in text and "1 of 16 images of train are in validation too" in text
    assert "(1 as the same file, 1 under another label)" in text
    assert "train/cat/003.png = test/cat/copy.png" in text and "train/dog/004.png = val/cat/copy.png" in text


def test_copies_are_left_out_of_train_or_refused_on_request(tmp_path):
    source = with_copies(tmp_path / "images")
    metrics, dataset = prepared(source, tmp_path / "dataset", duplicates="drop")
    assert metrics["duplicate_images"] == 2 and dataset.skipped == {"duplicate": 2}
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [14, 5, 7]
    with pytest.raises(ValueError, match="no image must be in two splits, but 1 of 16 images of train"):
        prepared(source, tmp_path / "refused", duplicates="error")


def test_copies_are_found_in_a_split_that_is_cut_and_in_arrays(tmp_path, caplog):
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    images[20:] = images[:20]
    labels = np.arange(40) % 2
    told = Dataset.from_arrays((images, labels))
    assert "images of train are in test too" in caplog.text and "train[" in caplog.text
    left = Dataset.from_arrays((images, labels), duplicates="drop")
    assert torch.equal(left.test.images, told.test.images) and len(left.train) < len(told.train)
    seen = {image.numpy().tobytes() for image in left.train.images}
    assert not [1 for image in left.test.images if image.numpy().tobytes() in seen]
    with pytest.raises(ValueError, match="duplicates must be one of drop, error, tell, but got 'no'"):
        Dataset.from_arrays((images, labels), duplicates="no")


def test_images_that_are_all_alike_are_told(tmp_path, caplog):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(6):
            Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "images" / name / f"{index}.png")
    _, dataset = prepared(tmp_path / "images", tmp_path / "dataset")
    assert "training images are alike, so nothing can be learned" in caplog.text
    assert dataset.std == (1.0, 1.0, 1.0)
    assert not dataset.normalise(dataset.train.images).abs().gt(1e-6).any()


def test_a_constant_channel_is_told(caplog):
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    images[:, 2] = 0
    assert Dataset.from_arrays((images, np.arange(40) % 2)).std[2] == 1.0
    assert "channel 2 of data is constant" in caplog.text


def test_one_image_per_class_is_an_error(tmp_path):
    source = make_image_folder(tmp_path / "images", classes=[f"c{index}" for index in range(20)], per_class=1)
    with pytest.raises(
        ValueError, match="beside one of every class for train.* there is no other: bring more images per class"
    ):
        prepared(source, tmp_path / "dataset")


def test_a_rare_class_keeps_a_training_image(tmp_path, caplog):
    source = make_image_folder(tmp_path / "images", classes=["cat", "dog"], per_class=20)
    rare = [f"rare{index}" for index in range(8)]
    make_image_folder(source, classes=rare, per_class=1)
    _, dataset = prepared(source, tmp_path / "dataset")
    assert set(dataset.train.labels.tolist()) == set(range(10))
    assert set(dataset.validation.labels.tolist()) == set(dataset.test.labels.tolist()) == {0, 1}
    assert "test has no image of" in caplog.text


def test_a_test_class_without_training_images_is_an_error(tmp_path):
    make_image_folder(tmp_path / "train", classes=("cat", "dog"))
    make_image_folder(tmp_path / "test", classes=("cat", "dog", "emu", "fox"))
    with pytest.raises(ValueError, match=r"classes of train only \(cat, dog\), but has 2 others: emu, fox"):
        prepared(tmp_path, tmp_path / "dataset")
    images, labels = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1])
    collected = Dataset.from_arrays((images, labels), test=(images, labels + 1), validation=(images, labels))
    assert len(collected.classes) == 3


def test_a_class_that_test_lacks_is_told(tmp_path, caplog):
    make_image_folder(tmp_path / "images" / "train", classes=("cat", "dog", "emu"))
    make_image_folder(tmp_path / "images" / "test", classes=("cat", "dog"))
    (tmp_path / "images" / "test" / "emu").mkdir()
    metrics, _ = prepared(tmp_path / "images", tmp_path / "dataset")
    assert metrics["classes"] == 3
    assert "has no image of 1 classes: emu" in caplog.text


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "Valid", "TEST"), ("Training", "dev", "Testing")]
)
def test_splits_of_the_user_s_own_are_known_by_their_usual_names(tmp_path, names):
    for name, count in zip(names, (6, 2, 3), strict=True):
        make_image_folder(tmp_path / "images" / name, per_class=count)
    metrics, _ = prepared(tmp_path / "images", tmp_path / "dataset")
    assert metrics == {"train_images": 12, "validation_images": 4, "test_images": 6, "classes": 2}


def test_splits_that_are_no_such_are_an_error_or_told(tmp_path, caplog):
    make_image_folder(tmp_path / "images" / "test")
    make_image_folder(tmp_path / "images" / "val")
    with pytest.raises(ValueError, match="must hold a folder train beside val and test"):
        prepared(tmp_path / "images", tmp_path / "dataset")
    make_image_folder(tmp_path / "images" / "train")
    make_image_folder(tmp_path / "images" / "valid")
    with pytest.raises(ValueError, match="must hold one folder of validation, but has val and valid"):
        prepared(tmp_path / "images", tmp_path / "dataset")
    shutil.rmtree(tmp_path / "images" / "valid")
    make_image_folder(tmp_path / "images", classes=("extra",))
    prepared(tmp_path / "images", tmp_path / "dataset")
    assert "extra beside train left out\n" in caplog.text
    shutil.rmtree(tmp_path / "images" / "test")
    make_image_folder(tmp_path / "images", classes=("test",))
    prepared(tmp_path / "images", tmp_path / "dataset")
    assert "extra, test beside train left out (test without a folder per class)" in caplog.text


NAMES = (
    "a b.png",
    "a#b.png",
    "a?b.png",
    "100%.png",
    "ü日本.png",
    "-rf.png",
    "[a].png",
    "a\\b.png",
    "a\nb.png",
    "x\xa0y.png",
)


def test_files_may_have_any_name(tmp_path):
    source = make_image_folder(tmp_path / "images", classes=("cat #1", "dog & co"), per_class=len(NAMES))
    for folder in source.iterdir():
        for path, name in zip(sorted(folder.iterdir()), NAMES, strict=True):
            path.rename(folder / name)
    (source / "cat #1" / os.fsdecode(b"\xff.png")).write_bytes((source / "cat #1" / NAMES[0]).read_bytes())
    _, plain = prepared(source, tmp_path / "dataset")
    _, stored = prepared(f"file://{source}", tmp_path / "stored")
    assert plain.classes == stored.classes == ("cat #1", "dog & co")
    assert torch.equal(plain.train.images, stored.train.images) and len(plain.train) + len(plain.test) < 21
    (source / "cat #1" / "a\nb.png").write_bytes(b"")
    (source / "cat #1" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    with pytest.raises(ValueError, match="2 files cannot be read") as caught:
        prepared(source, tmp_path / "refused")
    assert "\n" not in str(caught.value) and str(caught.value).encode()


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "a\nb"])
def test_a_class_must_have_a_name_that_can_be_written(tmp_path, name):
    make_image_folder(tmp_path / "images", classes=("cat", name))
    with pytest.raises(ValueError, match="must name its classes in UTF-8 without line feeds, but has") as caught:
        prepared(tmp_path / "images", tmp_path / "dataset")
    assert str(caught.value).isprintable()


def test_images_that_do_not_fit_into_memory_are_an_error_before_they_are_read(tmp_path, monkeypatch):
    source = make_image_folder(tmp_path / "images")
    monkeypatch.setattr("os.sysconf", lambda name: 2**10)
    with pytest.raises(ValueError, match=r"must fit into memory, but need .* lower image_size, or set limit"):
        prepared(source, tmp_path / "dataset", image_size=4096)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resize": 256}, "image_size must be the size of the images if resize is 256"),
        ({"crop_mode": "squash"}, "image_size must be the size of the images if crop_mode is squash"),
        ({"crop_mode": "squash", "resize": 9, "image_size": 8}, "resize must be 0 if crop_mode is squash"),
        ({"resize": 64, "image_size": 224}, "resize must be at least the crop's size 224x224, but got 64"),
        ({"image_width": 64}, "image_size must be the height if image_width is 64"),
        ({"normalization": "imagenet", "channels": 1}, "channels must be 3 for 3 numbers of mean, but got 1"),
        ({"mean": "0.5"}, "std must be numbers"),
    ],
)
def test_parameters_that_do_not_go_together_are_an_error(options, text):
    with pytest.raises(ValueError, match=text):
        DataPrepConfig(**options)


def test_an_older_artifact_is_read_and_the_usual_one_is_written_as_before(tmp_path):
    source = make_image_folder(tmp_path / "images")
    prepared(source, tmp_path / "dataset")
    content = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    assert set(content) == {
        "format_version", "name", "classes", "shape", "mean", "std", "splits", "seed", "source", "files",
    }  # fmt: skip
    prepared(source, tmp_path / "other", image_size=8, resize=9, normalization="none")
    given = load_dataset(tmp_path / "other")
    assert (given.resize, given.mean, given.preprocessing.crop) == ((9,), (0.0,) * 3, (8, 8))
    assert dataset_digest(tmp_path / "other") != dataset_digest(tmp_path / "dataset")


def test_a_file_and_a_bucket_source_agree_on_the_default_of_copies(tmp_path):
    source = with_copies(tmp_path / "images")
    _, one = prepared(source, tmp_path / "one", duplicates="drop")
    _, other = prepared(f"file://{source}", tmp_path / "two", duplicates="drop")
    assert torch.equal(one.train.images, other.train.images)
