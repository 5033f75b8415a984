"""YAML of users, read within bounds: aliases of aliases and merge keys grow a short text beyond any memory."""

from typing import Any

import yaml

from kondense.errors import InputError

MOST_NODES = 100_000  # of a document with its aliases written out; an Experiment has some hundred
MOST_LEVELS = 100  # of nesting


def read_documents(text: str) -> list[Any]:
    """Return the documents of a YAML text that are not empty.

    Raises:
        InputError: it is not YAML, nested too deeply, too large with its aliases written out, or an alias of itself.
    """
    loader = yaml.SafeLoader(text)
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            _check_size(node)
            documents.append(loader.construct_document(node))
    except RecursionError:
        raise InputError(f"must be YAML of at most {MOST_LEVELS} levels, but is nested deeper.") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # a date or a number that does not exist is a ValueError
        raise InputError(f"must be YAML: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()
    return [document for document in documents if document is not None]


def _check_size(root: yaml.Node | None) -> None:
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
        open_nodes.add(id(node))
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(size(part, level + 1) for part in inner)
        open_nodes.remove(id(node))
        return sizes[id(node)]

    if root is not None and (nodes := size(root, 0)) > MOST_NODES:
        raise InputError(f"must be YAML of at most {MOST_NODES:,} values with its aliases, but has {nodes:,}.")
