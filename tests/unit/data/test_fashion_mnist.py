import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kondense.data import download, fashion_mnist, locate
from kondense.data.idx import read_idx
from torchvision.datasets import mnist

from tests.support.data_makers import idx_bytes, make_fashion_mnist


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No usual place holds anything, and the cache is empty."""
    monkeypatch.setattr(locate, "usual_places", lambda: [tmp_path / "empty", locate.cache_directory()])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refuse(work: Path) -> Path:
    raise download.DownloadError("there is no network")


def test_hand_made_bytes_are_read(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255]))
    assert read_idx(path, 3).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]
    packed = tmp_path / "images.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_idx(packed, 3).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


def test_reads_what_torchvision_reads(tmp_path):
    make_fashion_mnist(tmp_path / "FashionMNIST" / "raw", compressed=False)
    ours = fashion_mnist.collect(tmp_path)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = mnist.FashionMNIST(str(tmp_path), train=train)
        assert np.array_equal(part.images[:, 0], theirs.data.numpy())
        assert np.array_equal(part.labels, theirs.targets.numpy())
    assert ours.classes == tuple(mnist.FashionMNIST.classes)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "must be an idx file of unsigned bytes in 1 dimensions"),
        (idx_bytes(np.zeros((2, 2), np.uint8)), "in 1 dimensions"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 0]), "unsigned bytes"),
        (idx_bytes(np.zeros(5, np.uint8))[:-1], r"must hold 5 bytes for \[5\], but holds 4"),
        (idx_bytes(np.zeros(5, np.uint8)) + b"x", "but holds more"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, text):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} .*{text}"):
        read_idx(path, 1)


def test_a_truncated_gzip_file_is_named(fashion_mnist_dir):
    path = fashion_mnist_dir / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{path} must be a gzip file"):
        fashion_mnist.collect(fashion_mnist_dir)


def test_a_label_out_of_range_is_an_error(fashion_mnist_dir):
    path = fashion_mnist_dir / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.full(20, 10, np.uint8))))
    with pytest.raises(ValueError, match=r"test labels .* must be in \[0, 10\), but got 10"):
        fashion_mnist.collect(fashion_mnist_dir)


def test_labels_must_be_as_many_as_images(fashion_mnist_dir):
    path = fashion_mnist_dir / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(59, np.uint8))))
    with pytest.raises(ValueError, match="60 images and 59 labels"):
        fashion_mnist.collect(fashion_mnist_dir)


def test_a_source_without_a_file_names_it(fashion_mnist_dir):
    (fashion_mnist_dir / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="has no t10k-labels-idx1-ubyte"):
        fashion_mnist.collect(fashion_mnist_dir)


def test_the_environment_names_the_first_place(monkeypatch, tmp_path):
    directory = make_fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    monkeypatch.setenv("KONDENSE_DATA", str(tmp_path))
    collection = fashion_mnist.collect(None)
    assert collection.origin == str(directory)
    assert len(collection.train) == 60


def test_a_download_is_kept_whole_and_found_again(nowhere):
    calls = []

    def serve(work: Path) -> Path:
        calls.append(work)
        return make_fashion_mnist(work / "deep" / "inside")

    routes = {"first": refuse, "second": serve}
    collection = fashion_mnist.collect(None, routes=routes)
    assert (collection.origin, len(collection.train)) == ("second", 60)
    cached = locate.cache_directory() / "fashion-mnist"
    assert sorted(path.name for path in cached.iterdir()) == sorted(f"{name}.gz" for name in fashion_mnist.FILES)
    assert fashion_mnist.collect(None, routes=routes).origin == str(cached)
    assert len(calls) == 1


def test_when_nothing_serves_every_way_is_said(nowhere):
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist.collect(None, routes=dict.fromkeys(fashion_mnist.ROUTES, refuse))
    text = str(caught.value)
    ways = ("torchvision's download failed (there is no network)", "dataset-fashion-mnist failed", "s3://", "minio://")
    for way in (*ways, "KONDENSE_DATA", "./data", "source", "train-images-idx3-ubyte"):
        assert way in text
    assert "\n" not in text
    assert not locate.cache_directory().exists() or not list(locate.cache_directory().iterdir())


def test_a_cache_that_cannot_be_written_is_one_more_failure(nowhere, tmp_path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(FileNotFoundError, match="first failed .*cannot be written.* Give their directory"):
        fashion_mnist.collect(None, routes={"first": make_fashion_mnist})


def test_the_debian_route_unpacks_what_apt_downloads(monkeypatch, tmp_path):
    package = tmp_path / "package"
    make_fashion_mnist(package / "usr/share/datasets/fashion-mnist")
    (package / "DEBIAN").mkdir()
    control = (
        "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: x\n"
    )
    (package / "DEBIAN/control").write_text(control)
    built = tmp_path / "dataset-fashion-mnist_1_all.deb"
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    fake = bin_directory / "apt-get"
    fake.write_text(f'#!/bin/sh\ncp "{built}" .\n')
    fake.chmod(0o755)
    if download.shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    subprocess.run(["dpkg-deb", "--build", str(package), str(built)], check=True, capture_output=True)
    monkeypatch.setenv("PATH", str(bin_directory), prepend=":")
    work = tmp_path / "work"
    work.mkdir()
    found = fashion_mnist.ROUTES["the Debian package dataset-fashion-mnist"](work)
    assert len(fashion_mnist.collect(found).train) == 60


def test_a_route_without_its_programs_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(download.DownloadError, match="apt-get is not installed"):
        download.from_debian("dataset-fashion-mnist", "usr", tmp_path)


def test_a_failed_program_gives_its_last_line(tmp_path):
    with pytest.raises(download.DownloadError, match=r"^ValueError: too bad$"):
        download._run([sys.executable, "-c", "raise ValueError('too bad')"], tmp_path)


@pytest.mark.parametrize(
    ("shape", "rule"), [((2**31, 2**31, 2**31), "can hold 67108864 at most"), ((2**25,), "but holds 0")]
)
def test_a_header_of_a_large_array_takes_no_memory(tmp_path, shape, rule):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()))
    with pytest.raises(ValueError, match=f"must hold .*{rule}"):
        read_idx(path, len(shape))


def test_a_file_of_zeros_is_refused_by_its_header(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + np.array([2**27], ">u4").tobytes() + bytes(2**20)))
    with pytest.raises(ValueError, match=r"must hold 134217728 bytes for \[134217728\], but can hold 67108864 at most"):
        read_idx(path, 1)
