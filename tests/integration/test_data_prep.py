"""data_prep from a bucket, through a real S3 gateway."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from kondense.data.dataset import load_dataset
from kondense.data.pieces import AT_ONCE, Pieces
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.store.bucket import ObjectStore
from kondense.store.open import open_store
from kondense.store.store import StoreError

from tests.support.data_makers import make_image_folder


@pytest.mark.parametrize(
    ("name", "fixture"),
    [("fashion_mnist", "fashion_mnist_dir"), ("cifar100", "cifar100_dir"), ("folder", "image_folder")],
)
def test_a_bucket_gives_what_a_directory_gives(
    request: pytest.FixtureRequest, bucket_uri: str, tmp_path: Path, name: str, fixture: str
) -> None:
    directory: Path = request.getfixturevalue(fixture)
    store = open_store(bucket_uri)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            store.upload_file(path.relative_to(directory).as_posix(), path)
    run(DataPrepConfig(dataset_name=name, source=bucket_uri), dataset_dir=tmp_path / "bucket")
    run(DataPrepConfig(dataset_name=name, source=str(directory)), dataset_dir=tmp_path / "plain")
    stored, plain = load_dataset(tmp_path / "bucket"), load_dataset(tmp_path / "plain")
    assert stored.classes == plain.classes
    for split in ("train", "validation", "test"):
        assert torch.equal(stored.split(split).images, plain.split(split).images)
        assert torch.equal(stored.split(split).labels, plain.split(split).labels)


def test_a_bucket_holds_the_same_data_as_a_folder_with_junk_and_odd_names(
    bucket_uri: str, image_folder: Path, tmp_path: Path
) -> None:
    picture = (image_folder / "cat" / "000.png").read_bytes()
    for name in (
        "cat/.thumbnails/a.png",
        "__MACOSX/cat/a.png",
        "dog/@eaDir/a.png/THUMB.jpg",
        "dog/._a.png",
        "cat/a.txt",
    ):
        (image_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (image_folder / name).write_bytes(picture)
    for index, name in enumerate(("a#1.png", "b?c=d.png", "100%.png", "e f+g.png", "ü日本.png", "%23.png")):
        (image_folder / "dog" / f"{index:03}.png").rename(image_folder / "dog" / name)
    raw = open_store(bucket_uri)
    assert isinstance(raw, ObjectStore)
    for path in image_folder.rglob("*"):
        if path.is_file():
            raw.put(path.relative_to(image_folder).as_posix(), path.read_bytes())  # as others write: any name
    run(DataPrepConfig(dataset_name="folder", source=bucket_uri), dataset_dir=tmp_path / "bucket")
    run(DataPrepConfig(dataset_name="folder", source=str(image_folder)), dataset_dir=tmp_path / "plain")
    stored, plain = load_dataset(tmp_path / "bucket"), load_dataset(tmp_path / "plain")
    assert sum(len(stored.split(name)) for name in ("train", "validation", "test")) == 24
    assert torch.equal(stored.train.images, plain.train.images)


def test_an_empty_prefix_is_an_error(bucket_uri: str, tmp_path: Path) -> None:
    open_store(bucket_uri).write("notes.txt", b"no data")
    with pytest.raises(FileNotFoundError, match=f"source {bucket_uri} holds no file of this data set"):
        run(DataPrepConfig(source=bucket_uri), dataset_dir=tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_store_that_cannot_be_reached_is_an_error(
    monkeypatch: pytest.MonkeyPatch, bucket_uri: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINIO_SECRET_KEY", "not the secret key")
    with pytest.raises(StoreError):
        run(DataPrepConfig(source=bucket_uri), dataset_dir=tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("storage", ["tensors", "shards"])
def test_pictures_of_a_bucket_are_fetched_when_they_are_read_and_few_are_on_the_disk(
    bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    source = make_image_folder(tmp_path / "images", per_class=40)
    store = open_store(bucket_uri)
    for path in source.rglob("*.png"):
        store.upload_file(path.relative_to(source).as_posix(), path)
    kept = 20 * max(path.stat().st_size for path in source.rglob("*.png"))
    monkeypatch.setattr(Pieces.__init__, "__defaults__", (kept,))
    held, fetched = [], []
    bring, fetch = Pieces.bring, Pieces._fetch

    def watched(pieces: Pieces, paths: Sequence[Path]) -> None:
        bring(pieces, paths)
        assert all(path.stat().st_size for path in paths)
        held.append(sum(path.stat().st_size for path in pieces.root.rglob("*.png")))

    monkeypatch.setattr(Pieces, "bring", watched)
    monkeypatch.setattr(Pieces, "_fetch", lambda pieces, path: (fetched.append(path.name), fetch(pieces, path))[1])
    options = {"dataset_name": "folder", "image_size": 8, "channels": 3, "storage": storage}
    run(DataPrepConfig(**options, source=bucket_uri), dataset_dir=tmp_path / "bucket")
    assert len(fetched) == 80  # each once: with size and channels given, no head is read before
    assert max(held) <= kept + AT_ONCE * kept / 20
    monkeypatch.setattr(Pieces, "bring", bring)
    run(DataPrepConfig(**options, source=str(source)), dataset_dir=tmp_path / "plain")
    stored, plain = load_dataset(tmp_path / "bucket"), load_dataset(tmp_path / "plain")
    for split in ("train", "validation", "test"):
        assert torch.equal(stored.split(split).images[:], plain.split(split).images[:])
