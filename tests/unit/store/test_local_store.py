import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from kondense.store.local import LocalStore
from kondense.store.open import open_store
from kondense.store.store import DamagedError, Store, StoreError, TooLargeError

from tests.support.data_makers import nested
from tests.support.store_suite import StoreSuite

FULL_DISK = """
import resource, sys
from kondense.store.open import open_store
from pathlib import Path
store = open_store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
store.write("small", b"1")
actions = {
    "write": lambda: store.write("small", bytes(1 << 20)),
    "write_if_absent": lambda: store.write("new", bytes(1 << 20), if_absent=True),
    "upload": lambda: store.upload_directory("up", Path(sys.argv[2])),
    "download": lambda: store.download_directory("there", Path(sys.argv[3])),
}
for name, action in actions.items():
    try:
        action()
    except OSError as error:
        print(name, error.errno, "nothing was kept" in str(error), "\\n" in str(error))
"""


class TestLocalStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> Store:
        return open_store(str(tmp_path_factory.mktemp("store") / "root"))


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(bytes(1 << 20))
    store = LocalStore(tmp_path / "root")
    store.upload_directory("there", source)
    command = [sys.executable, "-c", FULL_DISK, str(store.root), str(source), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == [
        f"{name} 27 True False" for name in ("write", "write_if_absent", "upload", "download")
    ], result.stderr
    assert store.read("small") == b"1"
    assert store.list() == ["small", "there/file", "there/manifest.json"]
    assert not (tmp_path / "out").exists()
    leftovers = [path.name for path in tmp_path.rglob(".*") if path.is_file()]
    assert leftovers == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(StoreError, match="while writing"):
        LocalStore(tmp_path).write("file/key", b"1")


@pytest.mark.parametrize("uri", ["", "ftp://host/x", "minio://", "s3:///x"])
def test_unknown_uris(uri: str) -> None:
    with pytest.raises(ValueError, match="a store must be"):
        open_store(uri)


def test_plain_paths_and_file_uris_are_the_same(tmp_path: Path) -> None:
    open_store(str(tmp_path)).write("k", b"1")
    assert open_store(tmp_path.as_uri()).read("k") == b"1"


def test_opening_a_directory_imports_neither_minio_nor_torch() -> None:
    code = (
        "import sys; from kondense.store.open import open_store; open_store('x').list();"
        "assert not {'minio', 'urllib3', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_limit_is_not_reserved(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("small", b"1")
    tracemalloc.start()
    try:
        assert store.read("small", limit_bytes=256 * 2**20) == b"1"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_neither_memory_nor_disk_holds_is_refused_at_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root")
    store.write("weights.pt", b"1")
    with (store.root / "weights.pt").open("r+b") as file:
        file.truncate(2**42)  # takes no room itself; more than the disks of tests have
    with pytest.raises(TooLargeError, match=r"weights\.pt must have at most [\d,]+ bytes, but has more"):
        store.read("weights.pt")
    with pytest.raises(StoreError, match=r"weights\.pt must fit beside .*copy, but needs 4,398,046,511,104 of"):
        store.download_file("weights.pt", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    os.rename(store.root / "weights.pt", store.root / "manifest.json")
    with pytest.raises(DamagedError, match=r"at most 268,435,456 bytes"):
        LocalStore(tmp_path).manifest("root")


def test_a_pipe_and_folders_without_end_are_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    os.mkfifo(tmp_path / "champion.json")
    for read in (lambda: store.read("champion.json"), lambda: store.download_file("champion.json", tmp_path / "copy")):
        with pytest.raises(StoreError, match="champion.json must be a file, but is a pipe"):
            read()
    nested(tmp_path, 101)
    with pytest.raises(StoreError, match="must have at most 100 folders in each other"):
        store.list()
