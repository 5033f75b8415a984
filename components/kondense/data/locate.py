"""Find the files of a data set: in a directory, in the usual directories, on the network, in an object store."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kondense.data.download import DownloadError
from kondense.data.entries import is_data
from kondense.errors import InputError
from kondense.files import new_directory
from kondense.removal import remove_directory
from kondense.scratch import scratch_directory

if TYPE_CHECKING:
    from kondense.store.store import Store

DATA_VARIABLE = "KONDENSE_DATA"
Route = Callable[[Path], Path]  # takes an empty directory, returns the directory of the files in it


class SourceError(InputError, FileNotFoundError):
    """The files of a data set were not found; the text names the ways to provide them."""


def usual_places() -> list[Path]:
    """Return the directories that are searched without a source, in order."""
    named = [Path(os.environ[DATA_VARIABLE])] if os.environ.get(DATA_VARIABLE) else []
    return [*named, Path("/usr/share/datasets"), cache_directory(), cache_directory().parent, Path("data")]


def cache_directory() -> Path:
    """Return the directory of downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "kondense"


def existing(directory: Path, name: str) -> Path | None:
    """Return the path of the file ``name`` in ``directory``, plain or compressed as ``.gz``; None if there is none."""
    return next((path for path in (directory / name, directory / f"{name}.gz") if path.is_file()), None)


def missing(directory: Path, files: Sequence[str]) -> list[str]:
    """Return the names of the files that are missing in ``directory``."""
    return [name for name in files if existing(directory, name) is None]


def locate(source: Path, layouts: Sequence[str], files: Sequence[str]) -> Path:
    """Return the directory below ``source`` that holds ``files``.

    Args:
        source: a directory.
        layouts: possible folders below it, the likeliest first; ``.`` is the directory itself.
        files: names of the files; each may be compressed as ``.gz``.

    Raises:
        SourceError: no layout holds all files; the text names the missing ones.
    """
    directory = _search([source], layouts, files)
    if directory is None:
        lacking = min((missing(source / layout, files) for layout in layouts), key=len)
        raise SourceError(f"source {source} must hold {', '.join(files)}, but has no {', '.join(lacking)}.")
    return directory


def obtain(layouts: Sequence[str], files: Sequence[str], routes: Mapping[str, Route]) -> tuple[Path, str]:
    """Return the directory that holds ``files`` and its origin; download them if no usual directory holds them.

    Args:
        layouts: possible folders below a usual directory; the last is the folder of the cache for a download.
        files: names of the files; each may be compressed as ``.gz``.
        routes: ways to download them, by name, in the order to try.

    Raises:
        SourceError: no way succeeded; the text names the attempts and the ways to provide the data.
    """
    directory = _search(usual_places(), layouts, files)
    if directory is not None:
        return directory, str(directory)
    failures = []
    for name, route in routes.items():
        try:
            return _fetched(cache_directory() / layouts[-1], route), name
        except DownloadError as error:
            failures.append(f"{name} failed ({error})")
    places = ", ".join(str(place) for place in usual_places())
    raise SourceError(
        f"{', '.join(files)} were not found in {places}; {'; '.join(failures)}. Give their directory or their"
        f" s3:// or minio:// prefix as source, or put them below ${DATA_VARIABLE} or ./data."
    )


@contextlib.contextmanager
def opened(source: str, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Yield ``source`` as a local directory; files of an object store are copied for the duration of the block.

    Args:
        source: a directory, or the URI of a prefix in a store.
        wanted: tells by its base name whether a file belongs to the data.

    Raises:
        SourceError: the directory does not exist, or the prefix holds no file of the data.
        StoreError: the store cannot be reached.
    """
    if "://" not in source:
        directory = Path(os.path.expanduser(source))
        if not directory.is_dir():
            raise SourceError(f"source must be a directory or a URI such as s3://bucket/prefix, but got {source}.")
        yield directory
        return
    from kondense.store.open import open_store

    with scratch_directory("source") as scratch:
        store = open_store(source)
        for key, is_wanted in wanted_keys(store, source, wanted):
            if is_wanted:
                path = scratch / key
                path.parent.mkdir(parents=True, exist_ok=True)
                store.download_file(key, path)
        yield scratch


def wanted_keys(store: "Store", source: str, wanted: Callable[[str], bool]) -> list[tuple[str, bool]]:
    """Return the keys of a store that are data, and whether each belongs to this data set.

    Args:
        store: is listed.
        source: its URI, for messages.
        wanted: tells by its base name whether a file belongs to the data.

    Raises:
        SourceError: no key does.
        StoreError: the store cannot be reached.
    """
    from kondense.store.store import check_key

    keys = [(key, wanted(key.rsplit("/", 1)[-1])) for key in store.list("") if is_data(key)]
    if not any(is_wanted for _, is_wanted in keys):
        raise SourceError(f"source {source} holds no file of this data set.")
    for key, _ in keys:
        check_key(key, reading=True)
    return keys


def _search(places: Sequence[Path], layouts: Sequence[str], files: Sequence[str]) -> Path | None:
    candidates = (place / layout for place in places for layout in layouts)
    return next((candidate for candidate in candidates if not missing(candidate, files)), None)


def _fetched(final: Path, route: Route) -> Path:
    try:
        with new_directory(final) as scratch:
            work = scratch / "work"
            work.mkdir()
            for path in route(work).iterdir():
                path.rename(scratch / path.name)
            remove_directory(work)
    except DownloadError:
        raise
    except (InputError, OSError) as error:  # the first: a file stands where a directory should be
        raise DownloadError(f"{final} cannot be written: {error}") from error
    return final
