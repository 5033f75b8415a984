"""YAML as kubectl reads it, within bounds: aliases of aliases and merge keys grow a short text beyond any memory."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kondense.errors import InputError
from kondense.json_text import SHOWN

MOST_NODES = 100_000  # of a document with its aliases written out; an Experiment has some hundred
MOST_CHARACTERS = 2**26  # of its scalars, with its aliases written out, and of the paths of its fields
MOST_LEVELS = 100  # of nesting
CORE = "tag:yaml.org,2002:"
PLAIN_TYPES = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null"}
PLAIN = {f"{CORE}{kind}" for kind in ("map", "seq", "merge", *PLAIN_TYPES.values())}
WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{f"{sign}{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
LONGEST = 70  # characters of an integer of 64 bits
WHOLE = re.compile(r"[+-]?(0[bB][01]+|0[xX][\da-fA-F]+|0[oO]?(?P<octal>[0-7]+)|0|[1-9]\d*)", re.ASCII)
DECIMAL = re.compile(r"[+-]?(\.\d+|\d+(\.\d*)?)([eE][+-]?\d+)?", re.ASCII)
SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster


class Loader(SAFE):
    """Reads values that JSON has, and tells texts, numbers and truth apart as kubectl does.

    To PyYAML ``1e-3`` and ``y`` are texts and ``12:30:45`` is a number; to kubectl they are a number, true and a text.
    A date without quotes is a text, and so is every key.

    Source: resolve in the fork of go-yaml v2 that sigs.k8s.io/yaml v1.6 has.
    """

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        """Return the tag of a node that has none."""
        if kind is not yaml.ScalarNode:
            return str(super().resolve(kind, value, implicit))
        if not implicit[0]:
            return f"{CORE}str"
        return _tag(value or "")

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[str, Any]:
        """Return the object of a node."""
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return {key if isinstance(key, str) else json.dumps(key): value for key, value in made.items()}

    def construct_plain(self, node: yaml.Node) -> bool | int | float | None:
        """Return the value of a scalar that is no text."""
        value = _scalar(str(self.construct_scalar(node)))
        if node.tag == TAGS[float] and isinstance(value, int):
            return float(value)
        if TAGS[type(value)] != node.tag or isinstance(value, str):
            raise ValueError(f"{node.value[:SHOWN]!r} is no {node.tag.removeprefix(CORE)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{node.value[:SHOWN]!r} is no number of JSON")
        return value


class Dumper(yaml.SafeDumper):
    """Quotes the texts that kubectl takes for something else, such as ``1e-3``, and writes no alias."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        """Return the tag that a value has without quotes."""
        parent: Any = super()
        tag = str(parent.resolve(kind, value, implicit))
        plain_text = kind is yaml.ScalarNode and implicit[0] and tag == f"{CORE}str"
        return _tag(value or "") if plain_text else tag

    def ignore_aliases(self, data: Any) -> bool:
        """Never alias."""
        return True


TAGS = {type_: f"{CORE}{name}" for type_, name in PLAIN_TYPES.items()}
for plain in (bool, int, float, type(None)):
    Loader.add_constructor(TAGS[plain], Loader.construct_plain)


def quoted(text: str) -> str:
    """Return a YAML text of PyYAML with quotes around the texts that kubectl and KFP take for something else."""
    lines = text.split("\n")
    for event in reversed(list(yaml.parse(text, SAFE))):
        # A plain scalar on one line, neither tagged nor, to PyYAML, anything but a text.
        if not isinstance(event, yaml.ScalarEvent) or event.style or not event.implicit[0] or not event.value:
            continue
        start, end = event.start_mark, event.end_mark
        if start is None or end is None:
            continue
        line = lines[start.line]
        if line[start.column : end.column] == event.value and _text_to_pyyaml_alone(event.value):
            lines[start.line] = f"{line[: start.column]}'{event.value}'{line[end.column :]}"
    return "\n".join(lines)


def _text_to_pyyaml_alone(value: str) -> bool:
    resolvers = SAFE.yaml_implicit_resolvers.get(value[0], [])
    return _tag(value) != f"{CORE}str" and not any(pattern.match(value) for _, pattern in resolvers)


def _tag(text: str) -> str:
    return f"{CORE}merge" if text == "<<" else TAGS[type(_scalar(text))]


def _scalar(text: str) -> Any:
    """Return the value of a plain scalar: None, or a bool, int, float or str."""
    if text in WORDS:
        return WORDS[text]
    digits = text.replace("_", "") if text[0] in "+-.0123456789" else ""
    if len(digits) <= LONGEST and (found := WHOLE.fullmatch(digits)):
        octal = found["octal"]
        whole = int(octal, 8) * (-1 if digits[0] == "-" else 1) if octal else int(digits, 0)
        if -(2**63) <= whole < 2**64:
            return whole
    if DECIMAL.fullmatch(digits) and math.isfinite(number := float(digits)):
        return number
    return text


def read_documents(text: str, *, most: int = MOST_NODES) -> list[Any]:
    """Return the documents of a YAML text that are not empty; arguments and errors as in ``read_located``."""
    return [document for document, _ in read_located(text, most=most)]


def read_file(path: Path, *, most: int = MOST_NODES) -> list[Any]:
    """Return the documents of a file, as ``read_documents`` does; its errors name the file.

    Raises:
        InputError: as ``read_located``, or it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return read_documents(path.read_text(encoding="utf-8"), most=most)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8, but: {error}.") from None
    except InputError as error:
        raise InputError(f"{path} {error}") from None


def read_located(text: str, *, most: int = MOST_NODES) -> list[tuple[Any, dict[str, int]]]:
    """Return the documents of a YAML text that are not empty, each with the lines of its fields by path.

    Args:
        text: the text.
        most: values of a document with its aliases written out.

    Raises:
        InputError: it is not YAML, nested too deeply, too large with its aliases written out, an alias of itself, or
            has values that JSON has not.
    """
    documents, loader = [], None
    try:
        _check_levels(text)
        loader = Loader(text)
        while loader.check_node():
            node = loader.get_node()
            _check_size(node, most)
            documents.append((loader.construct_document(node), _lines_by_path(node)))
    except RecursionError:
        raise InputError(f"must be YAML of at most {MOST_LEVELS} levels, but is nested deeper.") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # a date or a number that does not exist is a ValueError
        raise InputError(f"must be YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader is not None:
            loader.dispose()
    return [(document, lines) for document, lines in documents if document is not None]


def line_of(path: str, lines: Mapping[str, int]) -> int | None:
    """Return the line of a field, or of the innermost object around it that is in the text."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path)


def _lines_by_path(root: yaml.Node | None) -> dict[str, int]:
    found, characters = {}, 0
    for path, line in _lines(root, ""):
        characters += len(path)
        if characters > MOST_CHARACTERS:
            raise InputError(f"must be YAML with paths of at most {MOST_CHARACTERS:,} characters, but they have more.")
        found[path] = line
    return found


def _lines(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{path}[{index}]", item.start_mark.line + 1
            yield from _lines(item, f"{path}[{index}]")


def _check_levels(text: str) -> None:
    """Refuse what is nested too deeply by its events alone: libyaml's composer recurses until the process dies."""
    level = 0
    for event in yaml.parse(text, Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise InputError(f"must be YAML of at most {MOST_LEVELS} levels, but is nested deeper.")


def _check_size(root: yaml.Node | None, most: int) -> None:
    """Refuse a document that is too large with every alias written out."""
    sizes: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, level: int) -> tuple[int, int]:
        """Return the values and characters of a node."""
        if (known := sizes.get(id(node))) is not None:
            return known
        if id(node) in open_nodes:
            raise InputError("must be YAML without an alias of itself, but has one.")
        if level > MOST_LEVELS:
            raise InputError(f"must be YAML of at most {MOST_LEVELS} levels, but is nested deeper.")
        if node.tag not in PLAIN:
            tag = ascii(node.tag.removeprefix(CORE))[:SHOWN]
            raise InputError(f"must be YAML with values that JSON has, but one has the tag {tag}.")
        open_nodes.add(id(node))
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [size(part, level + 1) for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        own = 0 if parts else len(node.value)
        sizes[id(node)] = 1 + sum(nodes for nodes, _ in inner), own + sum(characters for _, characters in inner)
        open_nodes.remove(id(node))
        return sizes[id(node)]

    nodes, characters = size(root, 0) if root is not None else (0, 0)
    if nodes > most:
        raise InputError(f"must be YAML of at most {most:,} values with its aliases, but has {nodes:,}.")
    if characters > MOST_CHARACTERS:
        limit = f"{MOST_CHARACTERS:,} characters with its aliases"
        raise InputError(f"must be YAML of at most {limit}, but has {characters:,}.")
