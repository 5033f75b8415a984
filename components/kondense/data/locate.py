"""Where a data set's files may lie: in a directory, in one of the usual places, on the network, in an object store."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from kondense.data.download import DownloadError
from kondense.errors import InputError
from kondense.files import new_directory

DATA_VARIABLE = "KONDENSE_DATA"
Route = Callable[[Path], Path]  # takes an empty directory, returns the one in it that holds the files


class SourceError(InputError, FileNotFoundError):
    """The files of a data set are not where they were looked for; the text says how to provide them."""


def usual_places() -> list[Path]:
    """Return the directories that are searched when no source is given, in order."""
    own = [Path(os.environ[DATA_VARIABLE])] if os.environ.get(DATA_VARIABLE) else []
    return [*own, Path("/usr/share/datasets"), cache_directory(), cache_directory().parent, Path("data")]


def cache_directory() -> Path:
    """Return the directory that keeps what was downloaded."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "kondense"


def existing(directory: Path, name: str) -> Path | None:
    """Return the path of the file ``name`` in ``directory``, plain or compressed as ``.gz``; None if there is none."""
    return next((path for path in (directory / name, directory / f"{name}.gz") if path.is_file()), None)


def missing(directory: Path, files: Sequence[str]) -> list[str]:
    """Return the names of the files that ``directory`` lacks."""
    return [name for name in files if existing(directory, name) is None]


def locate(source: Path, layouts: Sequence[str], files: Sequence[str]) -> Path:
    """Return the directory below ``source`` that holds ``files``.

    Args:
        source: a directory that someone named.
        layouts: where below it they may be, the likeliest first; ``.`` is the directory itself.
        files: the names of the files; each may be compressed as ``.gz``.

    Raises:
        SourceError: no layout holds them all; the text names those that lack.
    """
    found = _search([source], layouts, files)
    if found is None:
        lacking = min((missing(source / layout, files) for layout in layouts), key=len)
        raise SourceError(f"source {source} must hold {', '.join(files)}, but has no {', '.join(lacking)}.")
    return found


def obtain(layouts: Sequence[str], files: Sequence[str], routes: Mapping[str, Route]) -> tuple[Path, str]:
    """Return the directory that holds ``files`` and the place that served it; fetch them if no usual place has them.

    Args:
        layouts: where below a usual place the files may be; the last is the folder of the cache that keeps a download.
        files: the names of the files; each may be compressed as ``.gz``.
        routes: ways to fetch them, by name, in the order to try.

    Raises:
        SourceError: nothing served; the text says what was tried and every way to provide the data.
    """
    found = _search(usual_places(), layouts, files)
    if found is not None:
        return found, str(found)
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
    """Yield ``source`` as a local directory; what lies in an object store is copied for the length of the block.

    Args:
        source: a directory, or a URI of a store's prefix.
        wanted: tells by its base name whether a file belongs to the data.

    Raises:
        SourceError: there is no such directory, or the prefix holds no file that is wanted.
        StoreError: the store cannot be reached.
    """
    if "://" not in source:
        directory = Path(os.path.expanduser(source))
        if not directory.is_dir():
            raise SourceError(f"source must be a directory or a URI such as s3://bucket/prefix, but got {source}.")
        yield directory
        return
    from kondense.store.open import open_store
    from kondense.store.store import check_key

    with tempfile.TemporaryDirectory(prefix="kondense-source-") as scratch:
        store = open_store(source)
        keys = [key for key in store.list("") if wanted(key.rsplit("/", 1)[-1])]
        if not keys:
            raise SourceError(f"source {source} holds no file of this data set.")
        for key in keys:
            check_key(key)
            path = Path(scratch, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download_file(key, path)
        yield Path(scratch)


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
            shutil.rmtree(work)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"{final} cannot be written: {error}") from error
    return final
