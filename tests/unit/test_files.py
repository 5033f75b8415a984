import hashlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from kondense.files import (
    MOST_LEVELS,
    ArtifactError,
    below,
    copy_directory,
    file_digests,
    json_bytes,
    new_directory,
    open_file,
    read_json,
    sha256,
    verify_files,
    write_file,
    write_json,
)
from kondense.json_text import json_value
from kondense.removal import remove_directory
from kondense.store.local import LocalStore

from tests.support.data_makers import deep_place, nested

# Writes directories or files of equal bytes over and over, so that a mixture would show.
WRITER = """
import sys
from pathlib import Path
from kondense.files import new_directory, write_file
final = Path(sys.argv[2])
print("ready", flush=True)
for round in range(1_000_000):
    content = bytes([round % 256]) * 300_000
    if sys.argv[1] == "file":
        write_file(final, content)
        continue
    with new_directory(final) as scratch:
        (scratch / "deep").mkdir()
        for name in ("a", "b", "deep/c"):
            (scratch / name).write_bytes(content)
"""

FULL_DISK = """
import resource, sys
from pathlib import Path
from kondense.files import copy_directory, new_directory, write_file
final = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for write in (write_file, lambda path, content: None):
    try:
        write(final / "file", bytes(1 << 20))
        with new_directory(final / "directory") as scratch:
            (scratch / "small").write_bytes(b"1")
            (scratch / "large").write_bytes(bytes(1 << 20))
    except OSError as error:
        print(error)
try:
    with new_directory(final / "copy") as scratch:
        copy_directory(Path(sys.argv[2]), scratch)
except OSError as error:
    print(error)
"""


def hidden(directory):
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


def test_a_new_directory_appears_whole(tmp_path):
    final = tmp_path / "deep" / "artifact"
    with new_directory(final) as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub" / "file").write_text("content")
        assert not final.exists()
        assert scratch.parent == final.parent  # the same file system, so that a rename is enough
    assert (final / "sub" / "file").read_text() == "content"
    assert final.stat().st_mode & 0o777 == 0o755
    assert hidden(final.parent) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_changes_nothing(tmp_path, error):
    final = tmp_path / "artifact"
    with new_directory(final) as scratch:
        (scratch / "old").write_text("old")
    with pytest.raises(error), new_directory(final) as scratch:
        (scratch / "new").write_text("new")
        raise error
    assert [path.name for path in final.iterdir()] == ["old"]
    assert hidden(tmp_path) == []


def test_a_directory_that_is_there_is_replaced_whole(tmp_path):
    final = tmp_path / "artifact"
    for name in ("old", "new"):
        with new_directory(final) as scratch:
            (scratch / name).write_text(name)
    assert [path.name for path in final.iterdir()] == ["new"]
    assert hidden(tmp_path) == []


def test_when_the_replacing_fails_the_old_stays(tmp_path, monkeypatch):
    final = tmp_path / "artifact"
    with new_directory(final) as scratch:
        (scratch / "old").write_text("old")
    replace = os.replace

    def failing(source, target):
        if str(source) == str(scratch):
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output error"), new_directory(final) as scratch:
        (scratch / "new").write_text("new")
    assert [path.name for path in final.iterdir()] == ["old"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_kill_at_any_moment_leaves_a_whole_result(tmp_path, kind):
    final = tmp_path / "result"
    seen = 0
    for attempt in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, kind, str(final)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.013 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        if not final.exists():
            continue
        seen += 1
        files = [final] if kind == "file" else [final / name for name in ("a", "b", "deep/c")]
        contents = {path.read_bytes() for path in files}
        assert len(contents) == 1
        content = contents.pop()
        assert content == content[:1] * 300_000
    assert seen
    # What the killed ones left is removed by the next writer.
    if kind == "file":
        write_file(final, b"")
    else:
        with new_directory(final):
            pass
    assert hidden(tmp_path) == []


def test_scratch_of_the_living_and_of_other_machines_stays(tmp_path):
    final = tmp_path / "artifact"
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(gone.stdout)
    here = socket.gethostname()
    names = {f".artifact.{here}.{dead}-x": False, f".artifact.{here}.{os.getppid()}-x": True}
    names |= {
        f".artifact.elsewhere.{dead}-x": True,
        f".artifact2.{here}.{dead}-x": True,
        f".artifact.{here}.me-x": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
    with new_directory(final):
        pass
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    source, tmp_path = tmp_path / "source", tmp_path / "target"
    for name, size in (("a", 1), ("deep/b", 1 << 17), ("deep/c", 1 << 18)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(bytes(size))
    tmp_path.mkdir()
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        f"[Errno 27] File too large while writing {tmp_path / name}; nothing was kept"
        for name in ("file", "directory", "copy")
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hidden", [True, False])
def test_a_copy_of_an_artifact_leaves_out_what_nothing_checks(tmp_path, hidden):
    (tmp_path / "secret").write_text("elsewhere")
    source = tmp_path / "artifact"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a").write_text("a")
    for place in (source, source / "deep"):
        (place / ".link").symlink_to(tmp_path / "secret")
    copy_directory(source, tmp_path / "copy", hidden=hidden)
    copied = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*")}
    assert copied == {"deep", "deep/a"} | ({".link", "deep/.link"} if hidden else set())


@pytest.mark.parametrize("kind", ["itself", "each other", "deep", "pipe", "device"])
def test_a_copy_of_a_directory_has_an_end(tmp_path, kind):
    """Two links to the folder itself name 2^40 folders, as far as the kernel follows them."""
    source = tmp_path / "source"
    source.mkdir()
    if kind == "itself":
        for name in ("a", "b"):
            (source / name).symlink_to(source)
    elif kind == "each other":
        (source / "20").mkdir()
        for level in range(20):
            (source / f"{level}").mkdir()
            for name in ("a", "b"):
                (source / f"{level}" / name).symlink_to(source / f"{level + 1}")
    elif kind == "deep":
        nested(source, 101)
    elif kind == "pipe":
        os.mkfifo(source / "pipe")
    else:
        (source / "zero").symlink_to("/dev/zero")
    with pytest.raises((ArtifactError, OSError), match="must (have at most 100 folders|be a file)|Too many levels"):
        copy_directory(source, tmp_path / "copy")


@pytest.mark.parametrize("ignore_errors", [False, True])
def test_a_directory_is_removed_however_deep_it_is(ignore_errors):
    with deep_place() as place:
        kept = place / "kept"
        kept.mkdir()
        (kept / "file").write_bytes(b"1")
        for branch in ("one", "two"):
            nested(place / "deep" / branch, 1_100)  # more than Python's calls in each other
            (place / "deep" / branch / "d" / "d" / "link").symlink_to(kept)
            (place / "deep" / branch / "d" / "file").write_bytes(b"1")
        remove_directory(place / "deep", ignore_errors=ignore_errors)
        assert list(place.iterdir()) == [kept] and (kept / "file").read_bytes() == b"1"


def test_a_directory_that_is_not_there_is_told_or_ignored(tmp_path):
    remove_directory(tmp_path / "none", ignore_errors=True)
    with pytest.raises(FileNotFoundError):
        remove_directory(tmp_path / "none")


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert hidden(path.parent) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_number_that_json_has_not(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"accuracy": [value]})
    assert list(tmp_path.iterdir()) == []


def test_json_round_trips(tmp_path):
    content = {"format_version": 1, "name": "Größe", "values": [1, 2.5, None, True]}
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json", format_version=1) == content
    assert json.loads(json_bytes(content)) == content


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "must hold a file file.json, but it is missing"),
        (b"", "must be JSON, but"),
        (b'{"format_version": 1', "must be JSON, but"),
        (b"\xff\xfe\x00", "must be JSON, but"),
        (b"[" * 100_000, "must be JSON of at most 100 levels"),
        (b"[1]", "must be a JSON object, but got list"),
        (b"{}", "must have format_version 1, but got None"),
        (b'{"format_version": 2}', "must have format_version 1, but got 2"),
        (b'{"format_version": "1"}', "must have format_version 1, but got '1'"),
        (b'{"format_version": true}', "must have format_version 1, but got True"),
        (b"\x80\x04}q\x00.", "must be JSON, but"),  # a pickle
    ],
)
def test_what_is_no_json_of_the_version_is_an_error(tmp_path, content, text):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=text) as caught:
        read_json(path, format_version=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[" * 100_000 + "]" * 100_000, "must be JSON of at most 100 levels"),
        ("[" * 102 + "]" * 102, "must be JSON of at most 100 levels"),
        ('{"a": [' * 51 + "]}" * 51, "must be JSON of at most 100 levels"),
        ('{"a": 1, "b": 2, "a": 3}', "its key 'a' stands twice in one object"),
        ("[NaN]", "its number NaN is not finite"),
        ("[-Infinity]", "its number -Infinity is not finite"),
        ("[1e999]", "its number 1e999 is not finite"),
        (f"[{10**400}]", "its integer 1000.* is beyond 2\\^64"),
        (f"[-{2**64 + 1}]", "is beyond 2\\^64"),
        ("9" * 10_000, "is beyond 2\\^64"),
        (r'["\ud800"]', "must be JSON, but: 'utf-8' codec can't encode"),
        ('{"a"', "must be JSON, but: Expecting"),
        (b"\xff\xfe[\x00", "must be JSON, but: 'utf-8' codec can't decode"),
        ('"' + "x" * 1000 + '"', "must be JSON of at most 1,000 bytes, but has 1,002"),
    ],
)
def test_the_reader_of_json_refuses_what_later_code_cannot_bear(text, rule):
    largest = 1000 if "1,000" in rule else 2**20
    with pytest.raises(ArtifactError, match=f"^file .*{rule}") as caught:
        json_value(text, "file", largest=largest)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_the_reader_of_json_takes_what_json_may_hold():
    content = {"a": [1.5, -(2**64), 2**64, None, True, "\U0001f600 \ud55c"], "": {"deep": [[[]]]}}
    for ensure_ascii in (True, False):
        assert json_value(json.dumps(content, ensure_ascii=ensure_ascii), "file") == content
    assert json_value("[" * 101 + "]" * 101, "file")  # the outermost is level 0
    assert json_value("[Infinity]", "file", finite=False) == [float("inf")]


def test_digests_are_those_of_hashlib(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_bytes(b"b" * 100_000)
    (tmp_path / "a").write_bytes(b"")
    expected = {"a": hashlib.sha256().hexdigest(), "deep/b": hashlib.sha256(b"b" * 100_000).hexdigest()}
    assert file_digests(tmp_path) == expected
    assert sha256(tmp_path / "a") == expected["a"]
    verify_files(tmp_path, expected, required=["a"])


def test_files_that_are_not_what_they_were_are_named(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    digests = file_digests(tmp_path)
    with pytest.raises(ArtifactError, match="must have a digest of its file b, but has none"):
        verify_files(tmp_path, digests, required=["b"])
    (tmp_path / "a").write_bytes(b"2")
    with pytest.raises(ArtifactError, match=f"{tmp_path / 'a'} must have sha256 .*, but has .*: it was damaged"):
        verify_files(tmp_path, digests)
    (tmp_path / "a").unlink()
    with pytest.raises(ArtifactError, match="must hold a file a, but it is missing"):
        verify_files(tmp_path, digests)


@pytest.mark.parametrize("extra", ["extra.py", "package/module.py", "link", "folder"])
def test_what_the_artifact_does_not_list_is_refused(tmp_path, extra):
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b", ".hidden", "own"):
        (tmp_path / name).write_bytes(b"1")
    digests = {"a": sha256(tmp_path / "a"), "sub/b": sha256(tmp_path / "a")}
    verify_files(tmp_path, digests, own=["own"])
    path = tmp_path / extra
    path.parent.mkdir(exist_ok=True)
    if extra == "link":
        path.symlink_to(tmp_path / "missing")
    elif extra == "folder":
        path.mkdir()
    else:
        path.write_text("raise SystemExit")
    with pytest.raises(ArtifactError, match=f"must hold only files that it gives digests of, but holds '{extra[:7]}"):
        verify_files(tmp_path, digests, own=["own"])


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/etc/hostname", "link"])
def test_a_name_outside_the_directory_is_refused_unread(tmp_path, name):
    directory = tmp_path / "artifact"
    (directory / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match="names a file outside itself"):
        verify_files(directory, {name: "0" * 64})


@pytest.mark.parametrize(("umask", "file_mode", "directory_mode"), [(0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_the_umask_is_heeded(tmp_path, umask, file_mode, directory_mode):
    before = os.umask(umask)
    try:
        write_file(tmp_path / "report.html", b"x")
        with new_directory(tmp_path / "model") as directory:
            (directory / "weights").write_bytes(b"x")
        LocalStore(tmp_path).write("stored", b"x")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {name: file_mode for name in ("report.html", "weights", "stored")} | {"model": directory_mode}


def test_what_is_below_a_folder_is_as_pathlib_says_but_for_folders_without_end(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / ".hidden").mkdir()
    for name in ("x", "a/y", "a/b/z", "a/.hidden/w"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "lost").symlink_to("nowhere")
    assert sorted(below(tmp_path)) == sorted(tmp_path.rglob("*"))
    assert {path.name for path in below(tmp_path, hidden=False)} == {"a", "b", "x", "y", "z", "again", "lost"}
    assert list(below(tmp_path / "x")) == list(below(tmp_path / "none")) == []
    (tmp_path / "few").mkdir()
    nested(tmp_path / "few", MOST_LEVELS - 1)
    assert len(list(below(tmp_path / "few"))) == MOST_LEVELS - 1


def test_folders_without_end_are_refused(tmp_path):
    nested(tmp_path, MOST_LEVELS + 1)
    reads = [lambda: list(below(tmp_path)), lambda: file_digests(tmp_path), lambda: verify_files(tmp_path, {}, own=[])]
    for read in reads:
        with pytest.raises(ArtifactError, match=f"must have at most {MOST_LEVELS} folders in each other"):
            read()


def test_only_files_are_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    (tmp_path / "zero").symlink_to("/dev/zero")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"content"
    for name in ("pipe", "zero"):
        with pytest.raises(ArtifactError, match=f"{name} must be a file, but is a pipe, a socket or a device"):
            open_file(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)


def test_files_that_no_memory_holds_are_refused_before_they_are_read(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")
    with (tmp_path / "b").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk, and hours to read
    with pytest.raises(ArtifactError, match=r"must have files that fit into memory, but they need 1024\.0 of "):
        verify_files(tmp_path, {"a": "0" * 64, "b": "0" * 64})
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(600))
    monkeypatch.setattr("kondense.files.machine_memory", lambda: 1000)
    with pytest.raises(ArtifactError, match="must have files that fit into memory"):  # both together
        verify_files(tmp_path, {name: sha256(tmp_path / name) for name in ("a", "b")})
    verify_files(tmp_path, {"a": sha256(tmp_path / "a")})


def test_links_that_lead_to_each_other_are_outside(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ArtifactError, match="names a file outside itself: 'a'"):
        verify_files(tmp_path, {"a": "0" * 64})
