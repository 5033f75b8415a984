"""A store in a plain directory. Stdlib only."""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kondense.files import ArtifactError, below, machine_memory, open_file
from kondense.store.store import ExistsError, Lease, NotFoundError, Store, StoreError, TooLargeError, check_key, visible

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileLease(Lease):
    """A lock on a file: the kernel releases it when the holder dies, so it has no time limit."""

    def check(self) -> None:
        """Do nothing: the lock lasts as long as the process."""


class LocalStore(Store):
    """A store whose keys are the files below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def read(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """See Store."""
        with self._explained(key, "reading"), open_file(self._path(key)) as file:
            size = os.fstat(file.fileno()).st_size
            if size > (most := machine_memory() if limit_bytes is None else limit_bytes):
                raise TooLargeError(self.address(key), most)
            return file.read(size)  # a limit would be reserved whatever the file has

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """See Store."""
        with replacing(self._path(key), if_absent=if_absent) as file:
            file.write(data)

    def exists(self, key: str) -> bool:
        """See Store."""
        return self._path(key).is_file()

    def list(self, prefix: str = "") -> list[str]:
        """See Store."""
        folder = prefix.strip("/")
        top = self._path(folder) if folder else self.root
        with self._explained(folder, "listing"):
            return visible(path.relative_to(self.root).as_posix() for path in below(top) if path.is_file())

    def delete(self, key: str) -> None:
        """See Store."""
        with self._explained(key, "deleting"):
            self._path(key).unlink(missing_ok=True)

    def upload_file(self, key: str, path: Path) -> None:
        """See Store."""
        with path.open("rb") as source, replacing(self._path(key)) as file:
            shutil.copyfileobj(source, file)

    def download_file(self, key: str, path: Path) -> None:
        """See Store."""
        with (
            self._explained(key, "reading"),
            open_file(self._path(key, reading=True)) as source,
            replacing(path) as file,
        ):
            size, left = os.fstat(source.fileno()).st_size, shutil.disk_usage(path.parent).free
            if size > left:  # a sparse file, which takes no room where it is, would fill the disk here
                raise StoreError(f"{self.address(key)} must fit beside {path}, but needs {size:,} of {left:,} bytes.")
            shutil.copyfileobj(source, file)

    @contextlib.contextmanager
    def exclusive(self, key: str, *, wait_s: float = 120.0) -> Iterator[Lease]:
        """See Store."""
        check_key(key)
        lock = self.root / ".leases" / hashlib.sha256(key.encode()).hexdigest()
        deadline = time.monotonic() + wait_s
        with self._explained(key, "locking"):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("ab")
        with file:
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise StoreError(f"{self.address(key)} was in use by others for {wait_s:g} s; try again later.")
                time.sleep(0.02)
            yield FileLease()

    def _path(self, key: str, *, reading: bool = False) -> Path:
        check_key(key, reading=reading)
        return self.root / key

    @contextlib.contextmanager
    def _explained(self, key: str, action: str) -> Iterator[None]:
        address = self.root / key
        try:
            yield
        except StoreError:
            raise
        except (FileNotFoundError, IsADirectoryError):
            raise NotFoundError(f"{address} does not exist.") from None
        except ArtifactError as error:
            raise StoreError(str(error)) from None
        except OSError as error:
            raise StoreError(error.errno, f"{os.strerror(error.errno or 0)} while {action} {address}") from error


@contextlib.contextmanager
def replacing(final: Path, *, if_absent: bool = False) -> Iterator[BinaryIO]:
    """Yield a scratch file that becomes ``final`` if the block succeeds.

    Raises:
        ExistsError: ``if_absent`` and ``final`` exists, or was written meanwhile.
        StoreError: the disk is full or not writable; ``final`` is unchanged.
    """
    scratch = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        opened = scratch.open("xb")  # with the rights that the umask leaves
    except OSError as error:
        raise StoreError(error.errno, f"{os.strerror(error.errno or 0)} while writing {final}") from error
    try:
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if if_absent:
            os.link(scratch, final)  # unlike a rename, a link never replaces
        else:
            os.replace(scratch, final)
    except FileExistsError:
        raise ExistsError(f"{final} exists already.") from None
    except StoreError:
        raise
    except OSError as error:
        kept = "; nothing was kept" if error.errno in FULL else ""
        raise StoreError(error.errno, f"{os.strerror(error.errno or 0)} while writing {final}{kept}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
