"""YAML of users, read within bounds: aliases of aliases and merge keys grow a short text beyond any memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kondense.errors import InputError

MOST_NODES = 100_000  # of a document with its aliases written out; an Experiment has some hundred
MOST_LEVELS = 100  # of nesting
LONGEST_INTEGER = 100  # characters; Python refuses to write an integer of more than 4,300 digits, as errors would
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster
INTEGER = "tag:yaml.org,2002:int"


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
        InputError: it is not YAML, nested too deeply, too large with its aliases written out, or an alias of itself.
    """
    documents, loader = [], None
    try:
        _check_levels(text)
        loader = LOADER(text)
        while loader.check_node():
            node = loader.get_node()
            _check_size(node, most)
            documents.append((loader.construct_document(node), dict(_lines(node, ""))))
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
    for event in yaml.parse(text, LOADER):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise InputError(f"must be YAML of at most {MOST_LEVELS} levels, but is nested deeper.")


def _check_size(root: yaml.Node | None, most: int) -> None:
    """Refuse a document that is too large with every alias written out."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, level: int) -> int:
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
        open_nodes.add(id(node))
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(size(part, level + 1) for part in inner)
        open_nodes.remove(id(node))
        return sizes[id(node)]

    if root is not None and (nodes := size(root, 0)) > most:
        raise InputError(f"must be YAML of at most {most:,} values with its aliases, but has {nodes:,}.")
