import io
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from kondense.data import cifar
from kondense.data.batch_pickle import read_batch
from torchvision.datasets import cifar as torchvision_cifar

from tests.support.data_makers import CIFAR10_NAMES, cifar_batch, write_python2_pickle


@pytest.fixture(autouse=True)
def no_md5(monkeypatch):
    """Let torchvision read files that are not the published ones."""
    monkeypatch.setattr(torchvision_cifar, "check_integrity", lambda path, md5=None: os.path.isfile(path))


@pytest.mark.parametrize(
    ("layout", "reference", "fixture"),
    [
        (cifar.CIFAR10_LAYOUT, torchvision_cifar.CIFAR10, "cifar10_dir"),
        (cifar.CIFAR100_LAYOUT, torchvision_cifar.CIFAR100, "cifar100_dir"),
    ],
)
def test_reads_what_torchvision_reads(request, layout, reference, fixture):
    directory = request.getfixturevalue(fixture)
    ours = cifar.collect(layout, directory.parent)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = reference(str(directory.parent), train=train)
        assert np.array_equal(part.images.transpose(0, 2, 3, 1), theirs.data)
        assert part.labels.tolist() == theirs.targets
    assert list(ours.classes) == theirs.classes
    assert layout.files == tuple(
        name for name, _ in [*reference.train_list, *reference.test_list, (reference.meta["filename"], "")]
    )


def test_the_folder_itself_can_be_the_source(cifar10_dir):
    collection = cifar.collect(cifar.CIFAR10_LAYOUT, cifar10_dir)
    assert (len(collection.train), len(collection.test)) == (100, 20)
    assert collection.classes == CIFAR10_NAMES


@pytest.mark.parametrize("protocol", range(pickle.DEFAULT_PROTOCOL + 1))
def test_protocols_up_to_python_3_s_default_are_read(tmp_path, protocol):
    batch = cifar_batch(7, label_key="labels", classes=10, seed=3)
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(batch, protocol))
    found = read_batch(path)
    assert np.array_equal(found.pop("data"), batch.pop("data"))
    assert found == batch


def test_arrays_in_column_order_are_read(tmp_path):
    path = tmp_path / "batch"
    array = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    write_python2_pickle(path, {"data": array})
    assert read_batch(path)["data"].tolist() == [[0, 1, 2], [3, 4, 5]]


class Malicious:
    """Its pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, getattr, __import__, np.load])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, protocol, function):
    mark = tmp_path / "mark"
    argument = f"touch {mark}" if function is os.system else str(mark)
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": Malicious(function, argument)}, protocol))
    with pytest.raises(ValueError, match=f"{path} must be a batch file of CIFAR, but: it names .*no batch file needs"):
        read_batch(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"not a pickle",
        b"\x80\x02]q\x00.",  # a list
        b"\x80\x02cnumpy\nndarray\n.",
        b"\x80\x02}U\x01xcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87Rs.",  # no state
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x08__self__K\x01s}\x86b.",  # sets an attribute
        b"\x80\x02cnumpy\ndtype\nNR.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 8 EiB
        b"\x80\x02P0\n.",
        b"\x80\x02Q.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
    ],
)
def test_a_damaged_pickle_is_named(tmp_path, content):
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} must be a batch file of CIFAR"):
        read_batch(path)


def nested(levels):
    return b"\x80\x02" + b"(" * levels + b"t" * levels + b"."


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (nested(100_000), "it holds a tuple, not a dict"),
        (b"\x80\x02}" + b"(" * 100_000 + b"t" * 100_000 + b"K\x01s.", "it has a key that is no text"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "it takes a value that is not there"),  # a memo of 2^31 entries
        (b"\x80\x02}r\xff\xff\xff\x7f0.", "it has a step POP, which no batch file needs"),
        (b"\x80\x02]q\x00h\x00a.", "it holds a list, not a dict"),  # a list that holds itself
        (b"\x80\x02\x8b\x00\x00\x01\x00" + b"\x7f" * 65536 + b".", "it holds an integer of more than 63 bits"),
        (b"\x80\x02}h\x05.", "it has no value 5 in its memo"),
        (b"\x80\x02}K\x01K\x02b.", "it changes a int"),
    ],
)
def test_a_pickle_takes_what_its_bytes_are_worth(tmp_path, content, rule):
    path = tmp_path / "batch"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"{path} must be a batch file of CIFAR, but: {rule}"):
            read_batch(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(content) + 2**20
    finally:
        tracemalloc.stop()


def test_copies_of_one_text_are_bounded_by_the_file(tmp_path):
    """Every ten bytes would encode a text of a megabyte again."""
    text = b"X" + (2**20).to_bytes(4, "little") + b"x" * 2**20 + b"q\x00"
    encode = b"c_codecs\nencode\nq\x02X\x06\x00\x00\x00latin1q\x01"
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02](" + text + encode + b"h\x02h\x00h\x01\x86R" * 1000 + b"e.")
    with pytest.raises(ValueError, match="its arrays hold more bytes than the file"):
        read_batch(path)


def test_any_flipped_byte_is_read_or_refused(tmp_path):
    buffer = tmp_path / "whole"
    write_python2_pickle(buffer, cifar_batch(1, label_key="labels", classes=10, seed=1))
    whole = buffer.read_bytes()
    structure = [*range(0, 220, 2), *range(len(whole) - 40, len(whole))]
    path = tmp_path / "batch"
    for index in structure:
        for value in b"\x00.Rb":
            path.write_bytes(whole[:index] + bytes([value]) + whole[index + 1 :])
            try:
                read_batch(path)
            except ValueError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"data": np.zeros((20, 3071), np.uint8)}, r"images of 3072 bytes, but holds \[20, 3071\]"),
        ({"data": np.zeros((20, 3072), np.float32)}, "does not hold unsigned bytes"),
        ({"data": [1, 2]}, "must hold 'data'"),
        ({"labels": [0] * 19}, "has 19 for 20"),
        ({"labels": [0.5] * 20}, "one whole number per image"),
        ({"labels": [10] * 20}, r"train labels .* must be in \[0, 10\), but got 10"),
        ({"labels": [-1] * 20}, "but got -1"),
    ],
)
def test_a_wrong_batch_is_an_error(cifar10_dir, change, text):
    batch = cifar_batch(20, label_key="labels", classes=10, seed=2) | change
    write_python2_pickle(cifar10_dir / "data_batch_2", batch)
    with pytest.raises(ValueError, match=text):
        cifar.collect(cifar.CIFAR10_LAYOUT, cifar10_dir)


def test_cifar10_is_no_cifar100(cifar10_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"source {tmp_path} must hold train, test, meta, but has no"):
        cifar.collect(cifar.CIFAR100_LAYOUT, tmp_path)


def test_the_makers_write_what_python_2_wrote(cifar10_dir: Path):
    """The opcodes of the published files: old module names, byte strings, protocol 2."""
    content = (cifar10_dir / "data_batch_1").read_bytes()
    assert content.startswith(b"\x80\x02}")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"U\x0bbatch_label" in content
    assert pickle.load(io.BytesIO(content), encoding="bytes")[b"labels"][:3] == [1, 2, 3]
