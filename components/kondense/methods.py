"""Tables of a stage's methods, read without importing them: a new method is one new file, or an entry point.

A method's own file declares a literal dict ``METHOD`` with ``name``, ``kind``, ``summary``, ``function`` (the attribute
to load; without it, the module) and any further options of the stage. Other packages register theirs under an entry
point group: ``[project.entry-points."kondense.scores"]``, ``name = "package.module:function"``. Those are imported when
they are first looked up, so that one that fails does not affect the others. Stdlib only.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kondense import entry_points
from kondense.errors import InputError

ROOT = Path(__file__).parent
DECLARATION = re.compile(r"^METHOD = ({.*?})$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Method:
    """One entry of a table.

    Attributes:
        name: as users write it.
        kind: one word that groups methods, such as ``channels``; the stage says which words there are.
        summary: one clause for ``--help``, forms and documents.
        location: ``package.module:function``.
        options: the declaration's other keys.
    """

    name: str
    kind: str
    summary: str
    location: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """Import and return the method's function."""
        module, _, attribute = self.location.partition(":")
        loaded: Any = importlib.import_module(module)
        return getattr(loaded, attribute) if attribute else loaded


class Methods(Mapping[str, Method]):
    """The methods of a stage by name, in alphabetical order.

    Args:
        packages: packages whose files may declare a method; subpackages are named on their own.
        group: entry point group of methods from other distributions; a name of our own outweighs theirs.
        describe: maps the name and the object of an entry point to its ``Method``.
    """

    def __init__(
        self, *packages: str, group: str = "", describe: Callable[[str, Any], Mapping[str, Any]] | None = None
    ) -> None:
        self._declared = {method.name: method for package in packages for method in declared_methods(package)}
        self._group, self._describe = group, describe or (lambda name, loaded: {})

    @functools.cached_property
    def _registered(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in entry_points.of_group(self._group)} if self._group else {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._declared, *self._registered}))

    def __contains__(self, name: object) -> bool:
        return name in self._declared or name in self._registered  # Mapping would load the entry point

    def __len__(self) -> int:
        return len({*self._declared, *self._registered})

    def __getitem__(self, name: str) -> Method:
        if name in self._declared:
            return self._declared[name]
        point = self._registered[name]
        try:
            options = dict(self._describe(name, point.load()))
        except Exception as error:  # foreign code may raise anything, and must be named
            raise InputError(f"{self._group}: {name} = {point.value} cannot be used: {error!r}.") from error
        kind, summary = options.pop("kind", ""), options.pop("summary", f"from {point.value}")
        return Method(name, kind, summary, point.value, options)

    def summary(self) -> str:
        """Return the clauses of our own methods as the description of a Config's field."""
        return "; ".join(f"{name}: {method.summary}" for name, method in sorted(self._declared.items()))

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Return the names of our own methods of a kind."""
        return tuple(name for name, method in sorted(self._declared.items()) if method.kind == kind)

    def having(self, option: str) -> tuple[str, ...]:
        """Return the names of our own methods whose declaration has an option that is true."""
        return tuple(name for name, method in sorted(self._declared.items()) if method.options.get(option))


def declared_methods(package: str) -> Iterator[Method]:
    """Yield the methods that the files of ``package``, such as ``kondense.prune.masks``, declare."""
    for path in sorted(ROOT.joinpath(*package.split(".")[1:]).glob("*.py")):
        if match := DECLARATION.search(path.read_text(encoding="utf-8")):
            options = ast.literal_eval(match[1])
            name, kind, summary = (options.pop(key) for key in ("name", "kind", "summary"))
            yield Method(name, kind, summary, f"{package}.{path.stem}:{options.pop('function', '')}", options)
