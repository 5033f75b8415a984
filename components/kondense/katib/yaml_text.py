"""YAML of users, read within bounds: aliases of aliases and merge keys grow a short text beyond any memory."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kondense.errors import InputError
from kondense.json_text import SHOWN

MOST_NODES = 100_000  # of a document with its aliases written out; an Experiment has some hundred
MOST_CHARACTERS = 2**26  # of its scalars, with its aliases written out, and of the paths of its fields
MOST_LEVELS = 100  # of nesting
LONGEST_INTEGER = 100  # characters; Python refuses to write an integer of more than 4,300 digits, as errors would
CORE = "tag:yaml.org,2002:"
INTEGER = f"{CORE}int"
TIME = f"{CORE}timestamp"
PLAIN = {f"{CORE}{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "merge", "value")}
SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster


class Loader(SAFE):
    """Reads values that JSON has, as kubectl does: a date without quotes is a text, and so is every key."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[str, Any]:
        """Return the object of a node."""
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return {key if isinstance(key, str) else json.dumps(key): value for key, value in made.items()}


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TIME]
    for first, resolvers in SAFE.yaml_implicit_resolvers.items()
}


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
        if node.tag == INTEGER and len(node.value) > LONGEST_INTEGER:
            length = f"{len(node.value):,}"
            raise InputError(
                f"must be YAML with integers of at most {LONGEST_INTEGER} characters, but one has {length}."
            )
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
