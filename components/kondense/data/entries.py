"""Which files of a folder or a bucket belong to the data: not hidden ones, and not what programs leave beside them."""

import pathlib

JUNK = frozenset({  # in lower case
    "$recycle.bin", "@eadir", "#recycle", "#snapshot", "__macosx", "__pycache__", "_vti_cnf", "desktop.ini",
    "ehthumbs.db", "lost+found", "system volume information", "thumbs.db",
})  # fmt: skip


def is_data(name: str) -> bool:
    """Return whether a relative path is data: no part of it is hidden, or made by a file manager or a tool.

    >>> [is_data(name) for name in ("cat/1.png", "cat/.ipynb_checkpoints/1.png", "__MACOSX/cat/1.png", "cat/._1.png")]
    [True, False, False, False]
    """
    return not any(part.startswith(".") or part.lower() in JUNK for part in pathlib.PurePosixPath(name).parts)
