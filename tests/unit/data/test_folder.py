import os

import numpy as np
import pytest
import torch
from kondense.data import folder, image_files, workers
from kondense.data.dataset import load_dataset
from kondense.data.picture import Geometry
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.errors import InputError
from PIL import Image
from torchvision.datasets import ImageFolder

from tests.support.data_makers import make_image_folder, nested


def collect(source, image_size=0, channels=0):
    return folder.collect(source, Geometry((image_size,) * 2 * bool(image_size), channels))


def everything(part):
    return part.images[np.arange(len(part))]


def test_reads_what_torchvision_reads(image_folder):
    ours = collect(image_folder)
    theirs = ImageFolder(str(image_folder))
    assert list(ours.classes) == theirs.classes
    assert ours.train.labels.tolist() == theirs.targets
    expected = np.stack([np.asarray(image) for image, _ in theirs])
    assert np.array_equal(everything(ours.train).transpose(0, 2, 3, 1), expected)


def test_images_are_cropped_to_a_square_and_resized(tmp_path):
    source = make_image_folder(tmp_path / "images", size=(30, 20))
    images = everything(collect(source, image_size=10).train)
    first = Image.open(source / "cat" / "000.png")
    expected = first.resize((10, 10), Image.Resampling.BILINEAR, box=(5, 0, 25, 20))
    assert np.array_equal(images[0].transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize(("mode", "own"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_channels_follow_the_images_or_the_parameter(tmp_path, mode, own):
    source = make_image_folder(tmp_path / "images", mode=mode)
    assert everything(collect(source).train).shape == (24, own, 10, 10)
    assert everything(collect(source, channels=1).train).shape[1] == 1
    assert everything(collect(source, channels=3).train).shape[1] == 3


def test_the_camera_s_orientation_is_heeded(tmp_path):
    source = make_image_folder(tmp_path / "images", per_class=2)
    path = source / "cat" / "000.png"
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # turned by a quarter
        pixels = np.asarray(image)
        image.save(path, exif=exif)
    assert np.array_equal(everything(collect(source).train)[0].transpose(1, 2, 0), np.rot90(pixels, -1))


def test_its_own_splits_are_kept(tmp_path):
    for split, count in (("train", 10), ("val", 3), ("test", 4)):
        make_image_folder(tmp_path / "images" / split, per_class=count)
    directory = tmp_path / "dataset"
    metrics = run(DataPrepConfig(dataset_name="folder", source=str(tmp_path / "images")), dataset_dir=directory)
    assert metrics == {"train_images": 20, "validation_images": 6, "test_images": 8, "classes": 2}
    dataset = load_dataset(directory)
    assert dataset.classes == ("cat", "dog")
    assert dataset.test.labels.tolist() == [0] * 4 + [1] * 4


def test_a_class_may_be_called_train(tmp_path):
    source = make_image_folder(tmp_path / "vehicles", classes=("bus", "train"))
    assert collect(source).classes == ("bus", "train")


def test_only_images_that_are_taken_are_decoded(image_folder, tmp_path):
    config = DataPrepConfig(dataset_name="folder", source=str(image_folder), limit=4, image_size=8, channels=3)
    run(config, dataset_dir=tmp_path / "first")
    first = load_dataset(tmp_path / "first")
    assert [len(first.split(name)) for name in ("train", "validation", "test")] == [3, 1, 4]
    order = np.random.default_rng(0).permutation(24)
    paths = sorted(image_folder.rglob("*.png"))
    for index in order[9:]:  # after 5 for the test, of which 4 are taken, and 4 to train and validate
        paths[index].write_bytes(b"damaged")
    run(config, dataset_dir=tmp_path / "second")
    assert torch.equal(first.train.images, load_dataset(tmp_path / "second").train.images)


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ValueError, match=f"{tmp_path} must hold one folder of images for each .* but has 0"):
        collect(tmp_path)


def test_one_class_is_an_error(tmp_path):
    make_image_folder(tmp_path, classes=("cat",))
    with pytest.raises(ValueError, match="at least 2 classes, but has 1: cat"):
        collect(tmp_path)


def test_folders_one_level_too_high_are_an_error_that_names_the_right_one(tmp_path):
    make_image_folder(tmp_path / "unpacked" / "photos")
    with pytest.raises(ValueError, match=r"but has 1: photos; .*unpacked/photos has 2: give that as the source\."):
        collect(tmp_path / "unpacked")


@pytest.mark.parametrize("inner", ["", "cat"])
def test_images_without_folders_of_classes_are_an_error_that_says_what_to_do(tmp_path, inner):
    source = make_image_folder(tmp_path, classes=("cat",), per_class=5)
    with pytest.raises(ValueError, match=r"; move the 5 images of .*cat to a folder per class\."):
        collect(source if inner else source / "cat")


def test_splits_within_each_class_are_an_error(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            make_image_folder(tmp_path / name, classes=(split,))
    with pytest.raises(ValueError, match=r"above those of the classes \(test/cat\), but has them in each .*cat/test"):
        collect(tmp_path)
    make_image_folder(tmp_path / "dog", classes=("puppies",))  # no folders of splits, but of one class
    assert collect(tmp_path).classes == ("cat", "dog")


def test_large_images_whose_size_nobody_asked_for_are_an_error(tmp_path):
    source = make_image_folder(tmp_path, per_class=2, size=(1025, 1024))
    with pytest.raises(ValueError, match="at most 1,048,576 pixels, or image_size must be given, but have 1024x1025"):
        collect(source)
    assert everything(collect(source, image_size=8).train).shape == (4, 3, 8, 8)


def test_a_class_without_images_is_an_error(image_folder):
    (image_folder / "empty").mkdir()
    with pytest.raises(ValueError, match=rf"{image_folder / 'empty'} must hold images .* but has none\."):
        collect(image_folder)
    (image_folder / "empty" / "1.heic").touch()
    with pytest.raises(ValueError, match=r"but has none, only 1 \.heic\."):
        collect(image_folder)


def test_a_class_only_of_the_test_is_an_error(tmp_path):
    make_image_folder(tmp_path / "train")
    make_image_folder(tmp_path / "test", classes=("cat", "fox"))
    with pytest.raises(ValueError, match=r"classes of train only \(cat, dog\), but has 1 others: fox"):
        collect(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
@pytest.mark.parametrize("image_size", [0, 8])
def test_a_corrupt_image_is_named_and_nothing_is_written(tmp_path, suffix, damage, image_size):
    source = make_image_folder(tmp_path / "images", per_class=3, size=(64, 64), suffix=suffix)
    path = source / "dog" / f"001{suffix}"
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no image at all", "truncated": content[: len(content) // 2]}[damage])
    config = DataPrepConfig(dataset_name="folder", source=str(source), image_size=image_size, channels=3)
    with pytest.raises(ValueError, match=f"{path} must be an image"):
        run(config, dataset_dir=tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("size", [(10, 12), (12, 12)])
def test_images_of_several_sizes_need_one_to_be_given(image_folder, size):
    path = image_folder / "dog" / "004.png"
    Image.new("RGB", size).save(path)
    with pytest.raises(ValueError, match=f"image_size must be given, but {path} is {size[1]}x{size[0]} and 23 of 24"):
        collect(image_folder)
    assert everything(collect(image_folder, image_size=10).train).shape == (24, 3, 10, 10)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("storage", ["tensors", "shards"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_worker_processes_decode_to_the_same_bytes(tmp_path, monkeypatch, storage, scheme, count):
    source = make_image_folder(tmp_path / "images", per_class=40, size=(40, 30))
    for number in (3, 7):
        (source / "cat" / f"{number:03d}.png").write_bytes(b"no picture")
    options = {"dataset_name": "folder", "image_size": 16, "storage": storage, "max_bad": 2}
    monkeypatch.setenv(workers.WORKERS, "0")
    alone = run(DataPrepConfig(source=str(source), **options), dataset_dir=tmp_path / "alone")
    monkeypatch.setattr(image_files, "FEW", 0)
    monkeypatch.setattr(image_files, "PART_BYTES", 5 * 3 * 16 * 16)
    monkeypatch.setenv(workers.WORKERS, str(count))
    decode, parent = image_files.decode, os.getpid()

    def elsewhere(*given, **named):
        assert os.getpid() != parent
        return decode(*given, **named)

    monkeypatch.setattr(image_files, "decode", elsewhere)
    together = run(DataPrepConfig(source=f"{scheme}{source}", **options), dataset_dir=tmp_path / "together")
    assert together == alone
    assert alone["unreadable_images"] == 2.0
    one, other = load_dataset(tmp_path / "alone"), load_dataset(tmp_path / "together")
    assert (one.mean, one.std) == (other.mean, other.std)
    for split in ("train", "validation", "test"):
        assert torch.equal(one.split(split).images[:], other.split(split).images[:])
        assert torch.equal(one.split(split).labels, other.split(split).labels)


@pytest.mark.parametrize(
    ("train", "test"),
    [("train_set", "test_set"), ("Training Data", "TestSet"), ("images-train", "images-test"), ("TRAIN", "testing")],
)
def test_splits_may_be_called_otherwise(tmp_path, train, test):
    make_image_folder(tmp_path / train)
    make_image_folder(tmp_path / test, per_class=3)
    found = collect(tmp_path)
    assert found.classes == ("cat", "dog")
    assert (len(found.train), len(found.test)) == (24, 6)


def test_names_that_only_begin_like_splits_are_those_of_classes(tmp_path):
    for name in ("trainer", "tester"):
        make_image_folder(tmp_path / name)
    assert collect(tmp_path).classes == ("tester", "trainer")


def test_classes_that_hold_the_same_folders_are_told(tmp_path, caplog):
    for name in ("morning", "evening"):
        make_image_folder(tmp_path / name)
    assert collect(tmp_path).classes == ("evening", "morning")
    assert "evening, morning hold the same folders (cat, dog) and are read as the classes" in caplog.text


def test_a_pipe_among_the_images_is_named_and_not_waited_for(image_folder, tmp_path):
    os.mkfifo(image_folder / "cat" / "x.png")
    config = DataPrepConfig(dataset_name="folder", source=str(image_folder))
    with pytest.raises(InputError, match=r"cat/x.png must be a file, but is a pipe, a socket or a device"):
        run(config, dataset_dir=tmp_path / "dataset")


def test_folders_in_folders_without_end_are_refused(image_folder, tmp_path):
    nested(image_folder / "cat", 101)
    config = DataPrepConfig(dataset_name="folder", source=str(image_folder))
    with pytest.raises(InputError, match="cat must have at most 100 folders in each other"):
        run(config, dataset_dir=tmp_path / "dataset")
