"""What is wrong with the images of a data set's splits: unreadable files, copies, classes without images.

Shapes: M images of a split.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kondense.data.image_files import in_one_line
from kondense.data.picture import shown
from kondense.data.split import SPLITS, Choice, Taken
from kondense.errors import InputError
from kondense.files import machine_memory
from kondense.logging import LOG

TELL, DROP, REFUSE = DUPLICATES = ("tell", "drop", "error")
JUDGED_FIRST = tuple(reversed(SPLITS))  # a copy counts in the split that is used more: it leaves train, never test
EXAMPLES = 3
NAMED = 8  # classes that a message names


@dataclasses.dataclass(frozen=True)
class Copy:
    """An image whose pixels equal those of an image of a split that is judged on."""

    split: str
    row: int
    original_split: str
    original_row: int


def check_memory(choices: Mapping[str, Choice], bytes_per_image: int) -> None:
    """Raise InputError if the decoded images cannot be in memory."""
    needed = bytes_per_image * sum(map(len, choices.values()))
    present = machine_memory()
    if needed > present:
        raise InputError(
            f"the images must fit into memory, but need {needed / 2**30:.1f} of {present / 2**30:.1f} GiB; lower"
            " image_size, or set limit."
        )


def check_readable(splits: Mapping[str, Taken], max_bad: int) -> int:
    """Return the number of unreadable images, which are left out.

    Raises:
        InputError: they are more than ``max_bad``; the text names the first ones and counts all.
    """
    problems = [problem for taken in splits.values() for problem in taken.problems]
    if len(problems) > max_bad:
        raise too_many(problems)
    if problems:
        LOG.warning(f"{len(problems)} left out: {in_one_line(problems)}")
    for name, taken in splits.items():
        if not len(taken):
            raise InputError(f"{name} must hold at least one image that can be read, but all {len(problems)} cannot.")
    return len(problems)


def too_many(problems: Sequence[str]) -> InputError:
    """Return the error for unreadable images, of which more may be left out."""
    them = "them" if len(problems) > 1 else "it"
    return InputError(f"{in_one_line(problems)} --set data_prep.max_bad={len(problems)} leaves {them} out.")


def without_copies(splits: Mapping[str, Taken], duplicates: str) -> dict[str, Taken]:
    """Find images that lie in two splits, by their pixels, and treat them as ``duplicates`` says.

    Args:
        splits: by name.
        duplicates: ``tell`` keeps and logs them, ``drop`` takes them out of the split that is judged on less (train
            before validation before test), ``error`` refuses them.

    Raises:
        InputError: copies are refused, or all images of a split are copies.
    """
    digests = {name: _digests(taken) for name, taken in splits.items()}
    if len(splits["train"]) > 1 and len(set(digests["train"])) == 1:
        LOG.warning(f"all {len(splits['train'])} training images are alike, so nothing can be learned from them")
        return dict(splits)
    copies = _copies(digests)
    if not copies:
        return dict(splits)
    text = _described(copies, splits)
    if duplicates == REFUSE:
        raise InputError(f"no image must be in two splits, but {text}; duplicates=drop leaves them out.")
    if duplicates == TELL:
        LOG.warning(f"{text}; accuracy on them is memory (duplicates=drop leaves them out)")
        return dict(splits)
    LOG.warning(f"left out: {text}")
    return {
        name: _dropped(taken, [copy.row for copy in copies if copy.split == name]) for name, taken in splits.items()
    }


def check_classes(classes: Sequence[str], splits: Mapping[str, Taken], *, limited: bool, strict: bool) -> None:
    """Raise InputError if a class of validation or test has no training image, and log classes that cannot be judged.

    Args:
        classes: names by label.
        splits: by name.
        limited: whether only some images were drawn on request; then a lack is only logged.
        strict: likewise if False.

    Raises:
        InputError: a split has no image, or no training image of such a class.
    """
    counts = {name: np.bincount(taken.labels, minlength=len(classes)) for name, taken in splits.items()}
    total = np.sum([*counts.values()], axis=0)
    untrained = [name for label, name in enumerate(classes) if not counts["train"][label] and total[label]]
    if untrained:
        least = int(min(total[label] for label in range(len(classes)) if total[label]))
        text = (
            f"every class must have a training image, but {_listed(untrained)} of {len(classes)} classes have none (the"
            f" smallest class has {least} of {int(total.sum())} images): bring more images, or folders train,"
            " validation and test."
        )
        if strict and not limited:
            raise InputError(text)
        LOG.warning(text)
    for name in SPLITS[1:]:
        lacking = [each for label, each in enumerate(classes) if not counts[name][label] and counts["train"][label]]
        if lacking and not limited:
            LOG.warning(f"{name} has no image of {_listed(lacking)} of {len(classes)} classes, so it cannot judge them")


def pixel_digests(images_NCHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return digests of the images' pixels, uint8 [N, 16]."""
    content = b"".join(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images_NCHW)
    return np.frombuffer(content, np.uint8).reshape(len(images_NCHW), 16).copy()


def _digests(taken: Taken) -> list[bytes]:
    return [row.tobytes() for row in pixel_digests(taken.images)]


def _copies(digests: Mapping[str, Sequence[bytes]]) -> list[Copy]:
    seen: dict[bytes, tuple[str, int]] = {}
    copies = []
    for name in JUDGED_FIRST:
        for row, digest in enumerate(digests[name]):
            original = seen.setdefault(digest, (name, row))
            if original[0] != name:
                copies.append(Copy(name, row, *original))
    return copies


def _described(copies: Sequence[Copy], splits: Mapping[str, Taken]) -> str:
    pairs = collections.Counter((copy.split, copy.original_split) for copy in copies)
    counts = " and ".join(
        f"{count} of {len(splits[split])} images of {split} are in {original} too"
        for (split, original), count in pairs.items()
    )
    relabelled = same_file = 0
    examples: list[str] = []
    for copy in copies:
        one, other = splits[copy.split], splits[copy.original_split]
        relabelled += bool(one.labels[copy.row] != other.labels[copy.original_row])
        paths = one.part.path(int(one.indices[copy.row])), other.part.path(int(other.indices[copy.original_row]))
        same_file += _same_file(*paths)
        if len(examples) < EXAMPLES:
            rows = f"{copy.split}[{copy.row}]", f"{copy.original_split}[{copy.original_row}]"
            examples.append(" = ".join(_name(path, row) for path, row in zip(paths, rows, strict=True)))
    kinds = [f"{same_file} as the same file"] if same_file else []
    kinds += [f"{relabelled} under another label"] if relabelled else []
    return f"{counts}{' (' * bool(kinds)}{', '.join(kinds)}{')' * bool(kinds)}: {'; '.join(examples)}"


def _name(path: Path | None, row: str) -> str:
    return shown("/".join(path.parts[-3:])) if path else row


def _same_file(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None:
        return False
    content = one.read_bytes()
    return bool(content) and content == other.read_bytes()  # one of a store may be gone from here again


def _dropped(taken: Taken, rows: Sequence[int]) -> Taken:
    if not rows:
        return taken
    kept_M = np.ones(len(taken), np.bool_)
    kept_M[list(rows)] = False
    if not kept_M.any():
        raise InputError(f"a split must hold an image of its own, but all {len(taken)} are in another one too.")
    return taken.only(kept_M)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} ({', '.join(names[:NAMED])}{more})"
