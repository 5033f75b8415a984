"""Atomic writes of files and directories, and their digests. Stdlib only."""

import contextlib
import errno
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kondense.errors import InputError
from kondense.json_text import LARGEST_JSON, SHOWN, json_object
from kondense.json_text import ArtifactError as ArtifactError  # noqa: PLC0414  # for those who read files
from kondense.removal import remove_directory

MOST_LEVELS = 100  # of folders in each other
MOST_FOLDERS = 10_000  # that are copied at once; a few links to folders can name more than any disk holds


def below(directory: Path, *, hidden: bool = True) -> Iterator[Path]:
    """Yield all files, folders and links below ``directory``; links to folders are not followed.

    Unlike Path.rglob and os.walk, which end in a RecursionError, it refuses folders in folders without end. Whoever can
    write to a folder can make them.

    Args:
        directory: the folder; nothing is yielded if it is none.
        hidden: False leaves out what begins with a dot, with all that is below.

    Raises:
        ArtifactError: there are more than MOST_LEVELS folders in each other.
    """
    left = [(directory, 1)] if directory.is_dir() else []
    while left:
        folder, level = left.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") and not hidden:
                    continue
                yield folder / entry.name
                if entry.is_dir(follow_symlinks=False):
                    if level >= MOST_LEVELS:
                        raise ArtifactError(f"{directory} must have at most {MOST_LEVELS} folders in each other.")
                    left.append((folder / entry.name, level + 1))


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading, but nothing that may have no end or never begin: a pipe, a socket or a device.

    Raises:
        ArtifactError: it is one of these.
        OSError: it cannot be opened.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # IsADirectoryError for a folder
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise ArtifactError(f"{path} must be a file, but is a pipe, a socket or a device.")


def check_writable(directory: Path) -> None:
    """Raise InputError if ``directory``, which is to be written, is a file or lies below one."""
    for path in (directory, *directory.parents):
        if path.exists():
            if not path.is_dir():
                raise InputError(f"{directory} must be a directory, or not exist yet, but {_is_file(path, directory)}.")
            return


def check_file(path: Path) -> None:
    """Raise InputError if ``path``, a file that is to be written, is a directory or lies below a file."""
    if path.is_dir():
        raise InputError(f"{path} must be a file, or not exist yet, but is a directory.")
    check_writable(path.parent)


def _is_file(path: Path, wanted: Path) -> str:
    return "is a file" if path == wanted else f"{path} is a file"


@contextlib.contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """Yield a scratch directory that becomes ``final`` if the block succeeds.

    If the block raises, or the process dies in it, ``final`` is unchanged. An existing directory at ``final`` is
    replaced by two renames: a reader sees the old one, the new one or, for an instant, none. Scratch directories of
    dead processes of this machine are removed.

    Raises:
        InputError: ``final`` is a file.
        OSError: the disk is full or not writable; the text names the directory.
    """
    check_writable(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(final)
    with _named_when_full(final):
        scratch = scratch_path(final)
        scratch.mkdir()  # unlike tempfile, with the rights that the umask leaves
        try:
            yield scratch
            for path in below(scratch):
                _sync(path)
            _replace_directory(scratch, final)
            _sync(final.parent)
        finally:
            remove_directory(scratch, ignore_errors=True)


def copy_directory(source: Path, target: Path, *, hidden: bool = True) -> None:
    """Copy all files below ``source`` to ``target``, which may exist; links are followed.

    Unlike shutil's copytree, which gathers what went wrong in a list, it ends with the first error.

    Args:
        source: the directory.
        target: the copy.
        hidden: False leaves out hidden files, which nothing checks in an artifact: one may link to a file elsewhere.

    Raises:
        ArtifactError: with what its links name it has more than MOST_LEVELS folders in each other or MOST_FOLDERS in
            all, or a pipe, a socket or a device.
        OSError: something cannot be read or written.
    """
    left, copied = [(source, target, 1)], 0
    while left:
        folder, copy, level = left.pop()
        copied += 1
        if level > MOST_LEVELS or copied > MOST_FOLDERS:
            rule = f"at most {MOST_LEVELS} folders in each other and {MOST_FOLDERS:,} in all"
            raise ArtifactError(f"{source} must have {rule}, with those that its links name.")
        copy.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") and not hidden:
                continue
            if path.is_dir():
                left.append((path, copy / path.name, level + 1))
            else:
                open_file(path).close()  # nothing that has no end
                shutil.copy2(path, copy / path.name)


def write_file(final: Path, content: bytes) -> None:
    """Write ``content`` to ``final``; a reader sees the old content or the new, never a part.

    Raises:
        OSError: the disk is full or not writable; the text names the file.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(final)
    with _named_when_full(final):
        scratch = scratch_path(final)
        try:
            with scratch.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, final)
            _sync(final.parent)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


def write_json(final: Path, content: Any) -> None:
    """Write ``content`` as JSON, completely or not at all; non-finite numbers raise ValueError."""
    write_file(final, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Return ``content`` as indented UTF-8 JSON; non-finite numbers raise ValueError."""
    return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_json(path: Path, *, format_version: int | Collection[int]) -> dict[str, Any]:
    """Read a JSON object and check its ``format_version``, one number or any of several.

    Raises:
        ArtifactError: the file is missing, is not a JSON object, or has another format version.
    """
    if not path.is_file():
        raise ArtifactError(f"{path.parent} must hold a file {path.name}, but it is missing.")
    if (size := path.stat().st_size) > LARGEST_JSON:
        raise ArtifactError(f"{path} must be JSON of at most {LARGEST_JSON:,} bytes, but has {size:,}.")
    return parse_json(path.read_bytes(), str(path), format_version=format_version)


def parse_json(text: bytes | str, place: str, *, format_version: int | Collection[int]) -> dict[str, Any]:
    """Return the JSON object in ``text`` and check its ``format_version``; ``place`` names it in errors.

    Raises:
        ArtifactError: it is not a JSON object, or has another format version.
    """
    content = json_object(text, place)
    version = content.get("format_version")
    known = (format_version,) if isinstance(format_version, int) else tuple(format_version)
    if type(version) is not int or version not in known:
        shown = ascii(version)[:SHOWN]
        raise ArtifactError(f"{place} must have format_version {' or '.join(map(str, known))}, but got {shown}.")
    return content


def machine_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below ``directory`` by its relative name."""
    return {path.relative_to(directory).as_posix(): sha256(path) for path in sorted(below(directory)) if path.is_file()}


def verify_files(
    directory: Path, digests: Mapping[str, str], *, required: Collection[str] = (), own: Collection[str] | None = None
) -> None:
    """Check the digest of every named file, and that the ``required`` files are named.

    Args:
        directory: of the files.
        digests: the SHA-256 of each by its relative name.
        required: names that must be among them.
        own: names of further files, such as the one that holds the digests; if given, any other file, folder or link is
            refused, except for hidden ones.

    Raises:
        ArtifactError: the first file that is missing, is a link, differs, has no digest or is not named; or, before any
            is read, that all of them are larger than this machine's memory, into which they would have to go.
    """
    for name in required:
        if name not in digests:
            raise ArtifactError(f"{directory} must have a digest of its file {name}, but has none.")
    needed = 0
    for name in digests:
        path = directory / name
        if not name.isprintable() or not _is_inside(path, directory):
            raise ArtifactError(f"{directory} names a file outside itself: {name!r}.")
        if not path.is_file():
            raise ArtifactError(f"{directory} must hold a file {name}, but it is missing.")
        needed += path.stat().st_size
    if needed > (present := machine_memory()):
        rule = f"files that fit into memory, but they need {needed / 2**30:.1f} of {present / 2**30:.1f} GiB"
        raise ArtifactError(f"{directory} must have {rule}.")
    for name, expected in digests.items():
        path = directory / name
        if (digest := sha256(path)) != expected:
            stated = ascii(expected)[1:-1][:SHOWN]
            raise ArtifactError(f"{path} must have sha256 {stated}, but has {digest}: it was damaged or changed.")
    if own is not None:
        _check_listed(directory, {*digests, *own})


def _is_inside(path: Path, directory: Path) -> bool:
    try:
        return path.resolve().is_relative_to(directory.resolve())
    except RuntimeError:  # pathlib's word for links that lead to each other
        return False


def _check_listed(directory: Path, listed: Collection[str]) -> None:
    folders = {parent.as_posix() for name in listed for parent in PurePosixPath(name).parents}
    for path in sorted(below(directory)):
        name = path.relative_to(directory).as_posix()
        if name not in listed and name not in folders and not any(part.startswith(".") for part in Path(name).parts):
            raise ArtifactError(f"{directory} must hold only files that it gives digests of, but holds {name!r} too.")


@contextlib.contextmanager
def _named_when_full(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        text = f"{os.strerror(error.errno)} while writing {final}; nothing was kept"
        raise OSError(error.errno, text) from error


def scratch_path(final: Path) -> Path:
    """Return an unused path beside ``final`` that names this process."""
    # With the host's name: containers that share a volume do not see each other's processes.
    return final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}-{secrets.token_hex(4)}")


def _remove_abandoned(final: Path) -> None:
    prefix = f".{final.name}.{socket.gethostname()}."
    for path in final.parent.glob(f"{glob.escape(prefix)}*-*"):
        owner = path.name.removeprefix(prefix).split("-")[0]
        if not owner.isdigit() or Path(f"/proc/{owner}").exists():
            continue
        if path.is_dir():
            remove_directory(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _replace_directory(scratch: Path, final: Path) -> None:
    if not final.is_dir() or not any(final.iterdir()):
        os.replace(scratch, final)
        return
    old = scratch_path(final)
    os.replace(final, old)
    try:
        os.replace(scratch, final)
    except OSError:
        os.replace(old, final)
        raise
    remove_directory(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
