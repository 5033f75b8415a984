"""What every store must do, whatever is behind it; subclasses give the fixture ``store``."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kondense.files import file_digests
from kondense.store.store import (
    MANIFEST,
    DamagedError,
    ExistsError,
    NotFoundError,
    Store,
    StoreError,
    TooLargeError,
)

ODD = ("a\nb", "a\\b")  # keys that no write takes


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run ``work(0)`` to ``work(count - 1)`` at the same time; return what they raised."""
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def run(index: int) -> None:
        gate.wait()
        try:
            work(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def make_directory(directory: Path) -> Path:
    """Write a nested directory with an empty file and one that takes several parts."""
    (directory / "sub").mkdir(parents=True)
    (directory / "empty").write_bytes(b"")
    (directory / "sub" / "big").write_bytes(bytes(range(256)) * 4 * 1024 * 20)  # 20 MiB: two parts in a bucket
    (directory / "name with blanks ü.json").write_bytes(b"{}")
    return directory


class StoreSuite:
    def test_refuses_to_read_more_than_the_limit(self, store: Store) -> None:
        store.write("a/b", b"1234")
        assert store.read("a/b", limit_bytes=4) == b"1234"
        with pytest.raises(TooLargeError, match="b must have at most 3 bytes"):
            store.read("a/b", limit_bytes=3)

    def test_reads_what_was_written_last(self, store: Store) -> None:
        for content in (b"one", b"", b"three" * 1000):
            store.write("a/b", content)
            assert store.read("a/b") == content

    def test_missing_keys(self, store: Store, tmp_path: Path) -> None:
        store.write("folder/key", b"1")
        assert not store.exists("folder") and not store.exists("none") and store.exists("folder/key")
        for key in ("none", "folder", "none/none"):
            with pytest.raises(NotFoundError, match=f"{key}.* does not exist"):
                store.read(key)
            with pytest.raises(FileNotFoundError):
                store.download_file(key, tmp_path / "file")
        assert not list(tmp_path.iterdir())
        store.delete("none")
        assert store.list("none") == []

    def test_lists_a_folder_and_not_its_namesakes(self, store: Store) -> None:
        for key in ("m/b", "m/a/x", "mm/a", "m.json", "z"):
            store.write(key, b"1")
        assert store.list("m") == store.list("m/") == ["m/a/x", "m/b"]
        assert store.list() == ["m.json", "m/a/x", "m/b", "mm/a", "z"]
        store.delete("m/b")
        store.delete("m/b")
        assert store.list("m") == ["m/a/x"]

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".hidden", "a/.b", *ODD])
    def test_refuses_keys_that_are_no_plain_path(self, store: Store, tmp_path: Path, key: str) -> None:
        for action in (store.read, store.exists, store.delete, lambda key: store.write(key, b"1")):
            with pytest.raises(ValueError, match="a key must be"):
                action(key)
        # Others may have written odd names, which are data; nothing leads out of the store.
        error, rule = (NotFoundError, "does not exist") if key in ODD else (ValueError, "a key must be")
        with pytest.raises(error, match=rule):
            store.download_file(key, tmp_path / "file")

    def test_writes_only_if_absent(self, store: Store) -> None:
        store.write("k", b"first", if_absent=True)
        with pytest.raises(ExistsError, match="k exists already"):
            store.write("k", b"second", if_absent=True)
        assert store.read("k") == b"first"
        assert store.list() == ["k"]

    def test_one_of_several_racing_writers_wins(self, store: Store) -> None:
        won = []

        def write(index: int) -> None:
            store.write("race", str(index).encode(), if_absent=True)
            won.append(index)

        errors = in_threads(6, write)
        assert len(won) == 1 and len(errors) == 5
        assert all(isinstance(error, FileExistsError) for error in errors)
        assert store.read("race") == str(won[0]).encode()

    def test_exclusive_use_loses_no_update(self, store: Store) -> None:
        store.write("count", b"0")

        def count(_: int) -> None:
            for _ in range(3):
                with store.exclusive("count") as lease:
                    value = int(store.read("count"))
                    time.sleep(0.01)
                    lease.check()
                    store.write("count", str(value + 1).encode())

        assert in_threads(5, count) == []
        assert store.read("count") == b"15"
        assert store.list() == ["count"]

    def test_waits_for_its_turn_only_so_long(self, store: Store) -> None:
        with store.exclusive("k"):
            with pytest.raises(StoreError, match=r"k was in use by others for 0.3 s"), store.exclusive("k", wait_s=0.3):
                pass
            with store.exclusive("another", wait_s=0.3):
                pass
        with store.exclusive("k", wait_s=0.3):
            pass

    def test_directory_round_trip(self, store: Store, tmp_path: Path) -> None:
        source = make_directory(tmp_path / "source")
        manifest = store.upload_directory("d/v1", source)
        assert manifest["files"] == file_digests(source)
        assert store.list("d") == sorted(f"d/v1/{name}" for name in (*manifest["files"], MANIFEST))
        target = tmp_path / "target"
        target.mkdir()
        (target / "old").write_bytes(b"replaced")
        store.download_directory("d/v1", target)
        assert file_digests(target) == file_digests(source)

    def test_a_directory_is_written_once(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"1")
        manifest = store.upload_directory("d", tmp_path)
        assert store.upload_directory("d", tmp_path) == manifest
        (tmp_path / "a").write_bytes(b"2")
        with pytest.raises(ExistsError, match="written once"):
            store.upload_directory("d", tmp_path)
        assert store.read("d/a") == b"1"

    def test_a_directory_is_replaced_on_demand(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"1")
        (tmp_path / "b").write_bytes(b"1")
        first = store.upload_directory("d", tmp_path, replace=True)
        assert store.upload_directory("d", tmp_path, replace=True) == first
        (tmp_path / "a").write_bytes(b"2")
        (tmp_path / "b").unlink()
        store.upload_directory("d", tmp_path, replace=True)
        assert store.list("d") == ["d/a", f"d/{MANIFEST}"] and store.read("d/a") == b"2"

    def test_a_directory_is_invisible_until_it_is_complete(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"1")
        manifest = store.upload_files("d", {"a": tmp_path / "a"})
        with pytest.raises(NotFoundError):
            store.download_directory("d", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        store.commit("d", manifest)
        store.download_directory("d", tmp_path / "out")

    def test_refuses_an_empty_directory_and_a_manifest_in_it(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least one file"):
            store.upload_directory("d", tmp_path)
        (tmp_path / MANIFEST).write_bytes(b"{}")
        with pytest.raises(ValueError, match=MANIFEST):
            store.upload_directory("d", tmp_path)

    @pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
    def test_a_damaged_directory_leaves_nothing_behind(self, store: Store, tmp_path: Path, damage: str) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "a").write_bytes(b"content")
        (tmp_path / "source" / "b").write_bytes(b"other")
        store.upload_directory("d", tmp_path / "source")
        if damage == "missing":
            store.delete("d/b")
        else:
            store.write("d/b", b"oth" if damage == "truncated" else b"OTHER")
        expected = NotFoundError if damage == "missing" else DamagedError
        with pytest.raises(expected, match="d/b"):
            store.download_directory("d", tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

    @pytest.mark.parametrize("content", [b"not JSON", b"[]", b'{"format_version": 2, "files": {}}', b"\xff\x00"])
    def test_a_damaged_manifest(self, store: Store, tmp_path: Path, content: bytes) -> None:
        store.write(f"d/{MANIFEST}", content)
        with pytest.raises(DamagedError, match=MANIFEST):
            store.download_directory("d", tmp_path / "out")
