"""The one reader of JSON that others may have written: within bounds, and every escape is one line. Stdlib only."""

import collections
import json
import math
from typing import Any

from kondense.errors import InputError

LARGEST_JSON = 2**28  # bytes; a report on 1,000 classes has some 100 MB
MOST_LEVELS = 100  # of lists and objects within each other; ours have about ten
LARGEST_INTEGER = 2**64  # JSON has no bound, but arithmetic with floats has one
SHOWN = 80  # characters of a value in an error


class ArtifactError(InputError):
    """An artifact is missing, has an unknown format version, or does not match its digests."""


def json_object(text: bytes | str, place: str, **bounds: Any) -> dict[str, Any]:
    """Return the JSON object in ``text``; see ``json_value``.

    Raises:
        ArtifactError: it is no JSON object, or breaks a rule of ``json_value``.
    """
    content = json_value(text, place, **bounds)
    if not isinstance(content, dict):
        raise ArtifactError(f"{place} must be a JSON object, but got {type(content).__name__}.")
    return content


def json_value(text: bytes | str, place: str, *, largest: int = LARGEST_JSON, finite: bool = True) -> Any:
    """Return the JSON value in ``text``, read within bounds: the one reader of JSON that others may have written.

    Args:
        text: UTF-8, or text.
        place: names it in errors.
        largest: bytes, or characters, that it may have.
        finite: whether NaN and infinities are refused; JSON has none, but Python writes them.

    Raises:
        ArtifactError: it is larger, no JSON or not UTF-8; it is nested more than ``MOST_LEVELS`` deep, has an integer
            beyond ``LARGEST_INTEGER``, a number that is not finite, a key twice, or half a surrogate pair.
    """
    if len(text) > largest:
        raise ArtifactError(f"{place} must be JSON of at most {largest:,} bytes, but has {len(text):,}.")
    try:
        decoded = text if isinstance(text, str) else text.decode()
        numbers: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite} if finite else {}
        content = json.loads(decoded, object_pairs_hook=_without_repeats, parse_int=_bounded, **numbers)
        if "\\ud" in decoded or "\\uD" in decoded:
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ArtifactError(f"{place} must be JSON of at most {MOST_LEVELS} levels, but is nested deeper.") from None
    except ValueError as error:
        raise ArtifactError(f"{place} must be JSON, but: {' '.join(str(error).split())[:200]}.") from None
    _check_levels(content, place)
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        repeated = counts.most_common(1)[0][0]
        raise ValueError(f"its key {repeated[:SHOWN]!r} stands twice in one object")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"its number {text[:SHOWN]} is not finite")
    return value


def _bounded(text: str) -> int:
    if len(text) > len(str(LARGEST_INTEGER)) + 1 or abs(int(text)) > LARGEST_INTEGER:
        raise ValueError(f"its integer {text[:SHOWN]} is beyond 2^64")
    return int(text)


def _check_levels(content: Any, place: str) -> None:
    level, depth = [content], 0
    while level:
        if depth > MOST_LEVELS:
            raise ArtifactError(f"{place} must be JSON of at most {MOST_LEVELS} levels, but is nested deeper.")
        depth += 1
        level = [
            part
            for whole in level
            if isinstance(whole, dict | list)
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
