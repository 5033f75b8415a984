"""The object store against a real S3 server, and what happens when that is killed, full or strange."""

import io
import json
import os
import queue
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kondense.files import file_digests
from kondense.store.bucket import ObjectStore
from kondense.store.connection import connection_from_environment
from kondense.store.open import open_store
from kondense.store.store import DamagedError, Store, StoreError
from kondense_pipelines.local import store as embedded
from kondense_pipelines.local.store import local_store
from kondense_pipelines.local.store_watch import StoreWatch, settled, watched_store
from minio import Minio

from tests.support.store_suite import StoreSuite, make_directory

FULL_DISK = """
import os, sys
from pathlib import Path
from kondense_pipelines.local.store import local_store
from kondense_pipelines.local.store_watch import StoreWatch, settled, watched_store
from kondense.store.store import StoreError
from tests.integration.test_store import reach
with local_store(Path(sys.argv[1]), {}) as variables:
    store = reach(variables, "minio://faults/p", delays_s=(0.1,))
    store.write("k", b"small")
    try:
        store.write("k", os.urandom(30 * 2**20))
    except StoreError as error:
        print(error)
    print(store.read("k").decode())
    print(*store.list())
"""


class TestObjectStore(StoreSuite):
    @pytest.fixture
    def store(self, bucket_uri: str) -> Store:
        return open_store(bucket_uri)


def reach(variables: dict[str, str], uri: str, **options: float) -> ObjectStore:
    bucket, _, prefix = uri.removeprefix("minio://").partition("/")
    return ObjectStore(uri, bucket=bucket, prefix=prefix, connection=connection_from_environment(variables), **options)


def client(variables: dict[str, str]) -> Minio:
    return Minio(
        variables["MINIO_ENDPOINT"],
        variables["MINIO_ACCESS_KEY"],
        variables["MINIO_SECRET_KEY"],
        secure=variables["MINIO_SECURE"] == "true",
    )


def gateway_process(directory: Path) -> embedded.Process:
    _, process = embedded.recorded(directory)
    assert process
    return process


def test_an_object_is_what_another_client_reads(bucket_uri: str, minio_environment: dict[str, str]) -> None:
    open_store(bucket_uri).write("folder/name", b"content")
    bucket, _, prefix = bucket_uri.removeprefix("minio://").partition("/")
    response = client(minio_environment).get_object(bucket, f"{prefix}/folder/name")
    assert response.read() == b"content"
    assert re.fullmatch("[0-9a-f]{64}", response.headers["x-amz-meta-sha256"])


def test_prefixes_that_an_address_would_cut_are_apart(bucket_uri: str, minio_environment: dict[str, str]) -> None:
    names = ["run", "run#1", "run#2", "run?1", "run?1#2", "run%231", "run 1", "run+1", "rün&1", "run:1@x", "run;1=2"]
    for name in names:
        open_store(f"{bucket_uri}/{name}").upload_files("m", {"data": Path(__file__)})
    bucket, _, prefix = bucket_uri.removeprefix("minio://").partition("/")
    found = client(minio_environment).list_objects(bucket, f"{prefix}/", recursive=True)
    assert sorted(entry.object_name for entry in found) == sorted(f"{prefix}/{name}/m/data" for name in names)
    for name in names:
        store = open_store(f"{bucket_uri}/{name}")
        assert store.list() == ["m/data"] and store.read("m/data") == Path(__file__).read_bytes()


def test_an_object_that_was_cut_short_is_refused(
    bucket_uri: str, minio_environment: dict[str, str], tmp_path: Path
) -> None:
    store = open_store(bucket_uri)
    store.write("k", b"whole content")
    bucket, _, prefix = bucket_uri.removeprefix("minio://").partition("/")
    other = client(minio_environment)
    digest = other.stat_object(bucket, f"{prefix}/k").metadata["x-amz-meta-sha256"]
    other.put_object(bucket, f"{prefix}/k", io.BytesIO(b"whole"), 5, metadata={"sha256": digest})
    with pytest.raises(DamagedError, match="must have sha256"):
        store.read("k")
    with pytest.raises(DamagedError, match="must have sha256"):
        store.download_file("k", tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_wrong_credentials(bucket_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(bucket_uri).write("k", b"1")
    monkeypatch.setenv("MINIO_SECRET_KEY", "not-the-secret")
    for action in (lambda store: store.read("k"), lambda store: store.write("k", b"2"), lambda store: store.list()):
        with pytest.raises(StoreError, match="was refused .*check MINIO_ACCESS_KEY") as caught:
            action(open_store(bucket_uri))
        assert "not-the-secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_gateway_killed_in_the_middle_of_an_upload_and_started_again(own_gateway_dir: Path, tmp_path: Path) -> None:
    source = make_directory(tmp_path / "source")
    for index in range(12):
        (source / f"file-{index}").write_bytes(os.urandom(3 * 2**20))
    with local_store(own_gateway_dir, {}) as variables:
        store = reach(variables, "minio://faults/p")
        store.write("before", b"1")
        uploads = threading.Thread(target=store.upload_directory, args=("d", source))
        uploads.start()
        while len(store.list("d")) < 3:
            assert uploads.is_alive()
            time.sleep(0.005)
        os.kill(gateway_process(own_gateway_dir).pid, signal.SIGKILL)
        assert uploads.is_alive()
        time.sleep(0.5)
        with local_store(own_gateway_dir, {}) as again:
            assert again == variables
            uploads.join(timeout=300)
            assert not uploads.is_alive()
            store.download_directory("d", tmp_path / "target")
            assert file_digests(tmp_path / "target") == file_digests(source)
            assert store.read("before") == b"1"


def test_a_full_disk_behind_the_gateway(own_gateway_dir: Path) -> None:
    own_gateway_dir.mkdir()
    # The disk is gone with the process, whatever happens.
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=24m tmpfs "$1" && shift && exec "$@"', "sh"]
    if subprocess.run([*mounted, str(own_gateway_dir), "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    command = [*mounted, str(own_gateway_dir), sys.executable, "-c", FULL_DISK, str(own_gateway_dir / "store")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    error, content, keys = result.stdout.splitlines()
    assert re.search("minio://faults/p/k .*; check the object store's log and free disk space", error)
    assert (content, keys) == ("small", "k")


def test_a_dead_holder_does_not_keep_others_out(minio_environment: dict[str, str], bucket_uri: str) -> None:
    code = (
        "import os, sys; from tests.integration.test_store import reach;"
        "store = reach(dict(os.environ), sys.argv[1], lease_s=3.0);"
        "context = store.exclusive('k'); context.__enter__(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, bucket_uri], check=False).returncode == -signal.SIGKILL
    with reach(minio_environment, bucket_uri, lease_s=3.0).exclusive("k", wait_s=300):
        pass


def test_the_embedded_store_is_shared_and_stopped_by_the_last(own_gateway_dir: Path) -> None:
    with local_store(own_gateway_dir, {}) as variables:
        process = gateway_process(own_gateway_dir)
        with local_store(own_gateway_dir, {}) as others:
            assert others == variables
            assert gateway_process(own_gateway_dir) == process
        assert process.alive()
        reach(variables, "minio://bucket").write("k", b"kept")
    assert not process.alive()
    with local_store(own_gateway_dir, {}) as variables:
        assert reach(variables, "minio://bucket").read("k") == b"kept"


def test_a_gateway_left_by_a_killed_run_is_used_again(own_gateway_dir: Path) -> None:
    code = (
        "import os, pathlib, sys; from kondense_pipelines.local.store import local_store;"
        "context = local_store(pathlib.Path(sys.argv[1]), {}); context.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(own_gateway_dir)], check=False)
    process = gateway_process(own_gateway_dir)
    with local_store(own_gateway_dir, {}) as variables:
        assert gateway_process(own_gateway_dir) == process
        reach(variables, "minio://bucket").write("k", b"1")
    assert not process.alive()


KILLED_BEFORE_IT_RECORDS = """
import os, signal, sys
from pathlib import Path
from kondense_pipelines.local import store
write = store.write_json
def killed(path, content):
    if path.name == "gateway.json":
        print(content["pid"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
store.write_json = killed
with store.local_store(Path(sys.argv[1]), {}):
    pass
"""


def test_no_gateway_is_left_by_a_run_that_is_killed_before_it_is_recorded(own_gateway_dir: Path) -> None:
    command = [sys.executable, "-c", KILLED_BEFORE_IT_RECORDS, str(own_gateway_dir)]
    killed = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert killed.returncode == -signal.SIGKILL
    deadline_s = time.monotonic() + 30
    while (process := embedded.process_of(int(killed.stdout))) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    if process:
        os.kill(process.pid, signal.SIGKILL)
    assert not process
    with local_store(own_gateway_dir, {}) as variables:
        reach(variables, "minio://kept/p").write("k", b"1")


def test_the_secret_is_for_the_owner_only(own_gateway_dir: Path) -> None:
    with local_store(own_gateway_dir, {}) as variables:
        path = own_gateway_dir / "credentials.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert variables["MINIO_SECRET_KEY"] in path.read_text()
        command = Path(f"/proc/{gateway_process(own_gateway_dir).pid}/cmdline").read_text()
        assert variables["MINIO_SECRET_KEY"] not in command
        assert variables["MINIO_SECRET_KEY"] not in (own_gateway_dir / "gateway.log").read_text()


def test_a_store_that_the_environment_names_is_used_instead(tmp_path: Path) -> None:
    named = {"MINIO_ENDPOINT": "example.org:9000", "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "s", "OTHER": "x"}
    with local_store(tmp_path / "gateway", named) as variables:
        assert variables == {key: value for key, value in named.items() if key != "OTHER"}
    assert not list(tmp_path.iterdir())


def test_a_gateway_that_cannot_start_says_why(own_gateway_dir: Path) -> None:
    with local_store(own_gateway_dir, {}):
        pass
    for path in (own_gateway_dir / "volume").glob("meta.db*"):
        path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="does not start: .*not a database"), local_store(own_gateway_dir, {}):
        pass


@pytest.mark.parametrize("port", [10**9, -5, 22, True])
def test_a_recorded_port_that_no_gateway_had_counts_as_none(tmp_path: Path, port: int) -> None:
    (tmp_path / "gateway.json").write_text(json.dumps({"port": port, "pid": os.getpid(), "started": 1}))
    assert embedded.recorded(tmp_path) == (0, None)


def test_credentials_that_are_no_keys_are_refused_in_one_line(tmp_path: Path) -> None:
    for key in ("", "a\nb", "\0", "\u00e9"):
        (tmp_path / "credentials.json").write_text(json.dumps({"access_key": "kondense", "secret_key": key}))
        refused = pytest.raises(StoreError, match="credentials.json must hold access_key and secret_key")
        with refused, local_store(tmp_path, {}):
            pass


def test_a_watched_gateway_that_dies_is_started_again_at_the_same_port_with_its_data(own_gateway_dir: Path) -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    with watched_store(own_gateway_dir, {}, told.put) as variables:
        store = reach(variables, "minio://watched")
        store.write("k", b"kept")
        first = gateway_process(own_gateway_dir)
        os.kill(first.pid, signal.SIGKILL)
        assert told.get(timeout=120) == "the object store ended and was started again"
        second = gateway_process(own_gateway_dir)
        assert second != first and store.read("k") == b"kept" and embedded.recorded(own_gateway_dir)[1] == second
        assert settled(own_gateway_dir) == second
    assert not second.alive() and told.empty()


def test_a_named_store_is_not_watched(tmp_path: Path) -> None:
    named = {"MINIO_ENDPOINT": "elsewhere:9000"}
    with watched_store(tmp_path / "gateway", named) as variables:
        assert variables == named and not any(isinstance(each, StoreWatch) for each in threading.enumerate())
