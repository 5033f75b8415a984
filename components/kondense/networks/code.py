"""The code that a network is built from, as a digest for the keys of caches and checkpoints.

A network of the user's is known by ``package.module:factory``; what that builds depends on the module, on the modules
that it imports, and on files that it names. They are found and read without being imported, because importing runs
their code. The standard library and installed packages count by their versions, an installed package that the network
itself is in by its files. Stdlib only.
"""

import ast
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import pkgutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kondense import entry_points
from kondense.networks.names import BUILT_IN, LIBRARIES, network_of

OURS = ("kondense", "kondense_pipelines")
HOME = "kondense.networks"  # whose own modules count for built-in networks; all else of Kondense counts by its version
GROUPS = ("networks", "quantizers", "scores", "stages")  # of entry points by which other packages change results
INSTALLED = ("site-packages", "dist-packages")
DYNAMIC = (
    "import_module",
    "__import__",
    "iter_modules",
    "walk_packages",
    "exec",
    "exec_module",
    "spec_from_file_location",
)
LONGEST_TEXT = 200  # characters of a module's or file's name in a source
NAMED_BYTES = 2**24  # larger files that a module names are known by size and time of change

# Of modules that this process has imported: their specification and the source that was read first. A module that is
# edited afterwards keeps its old code in this process until it is reloaded, which gives it a new specification.
_loaded: dict[str, tuple[object, bytes]] = {}


def code_digest(name: str, places: Sequence[Path] = ()) -> str:
    """Return the digest of the code that builds the network ``name``; it imports nothing of the user's.

    Args:
        name: of a network (see ``names``), or of an entry point of a group ``kondense.*``.
        places: folders in which modules are looked for before ``sys.path`` and the working directory.

    Returns:
        For a network of torchvision or timm the library's version; for another one the SHA-256 of its sources; an empty
        string for a name that is none of these.
    """
    name = network_of(name)
    prefix, _, rest = name.partition(":")
    if prefix in LIBRARIES and rest:
        return _version(prefix)
    if name in BUILT_IN:
        return _digest([BUILT_IN[name].partition(":")[0]])
    if _is_dotted(prefix) and rest.isidentifier():
        return _digest([prefix], places)
    return _digest([value.partition(":")[0] for value in _registered().get(name, ())], places)


def code_digests(names: Iterable[str], places: Sequence[Path] = ()) -> dict[str, str]:
    """Return the digests of those of ``names`` that name code, by name; see ``code_digest``."""
    return {name: digest for name in sorted(set(names)) if (digest := code_digest(name, places))}


def registered_digest() -> str:
    """Return the digest of the code of all entry points of other packages."""
    values = {value.partition(":")[0] for values in _registered().values() for value in values}
    return _digest(sorted(values))


def sources(module: str, places: Sequence[Path] = ()) -> dict[str, bytes]:
    """Return the content of the files that importing ``module`` reads, by module, and those that they name, by path.

    Modules of the standard library and of installed packages are not among them, unless ``module`` is in the same
    package. A module that is not found has an empty content.
    """
    importlib.invalidate_caches()
    home = module.partition(".")[0]
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        spec = _spec(name, places)
        if spec is None or not _counts(spec, name, home):
            if name == module:
                found[name] = b""
            continue
        found[name] = _content(spec)
        waiting += _parents(name)
        if spec.origin and spec.origin.endswith(".py"):
            imports, files = _references(spec, name, found[name])
            waiting += imports
            found |= files
    return found


def _digest(modules: Iterable[str], places: Sequence[Path] = ()) -> str:
    """Return the digest of modules, of what they import, and of the versions of the packages that they use."""
    digest, used = hashlib.sha256(), False
    for module in modules:
        used = True
        for name, content in sorted(sources(module, places).items()):
            digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
            for package in sorted(_packages(content) if not name.startswith("/") else ()):
                digest.update(f"{package} {_version(package)}\n".encode())
    return digest.hexdigest() if used else ""


def _spec(name: str, places: Sequence[Path]) -> importlib.machinery.ModuleSpec | None:
    """Find a module without importing it or the packages that it is in, which ``importlib.util.find_spec`` would do.

    A module that this process has not imported is looked for in the working directory last, as steps do.
    """
    top, *rest = name.split(".")
    if top == "__main__":
        path = getattr(sys.modules.get(top), "__file__", None)
        return importlib.util.spec_from_file_location(top, path) if path and not rest else None
    spec = getattr(sys.modules.get(top), "__spec__", None)
    if spec is None:
        spec = _found(top, [*(str(place) for place in places), *sys.path, str(Path.cwd())])
    if spec is None and top not in sys.modules:
        spec = importlib.util.find_spec(top)
    whole = top
    for part in rest:
        whole = f"{whole}.{part}"
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = _found(whole, list(spec.submodule_search_locations))
    return spec


def _found(name: str, places: Iterable[str]) -> importlib.machinery.ModuleSpec | None:
    """Find a module in folders, or in zip files; a package without ``__init__.py`` may be in several of them."""
    portions: list[str] = []
    for place in places:
        finder = pkgutil.get_importer(place or ".")
        spec = finder.find_spec(name) if finder and hasattr(finder, "find_spec") else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or []) if spec is not None else []
    if not portions:
        return None
    namespace = importlib.machinery.ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def _counts(spec: importlib.machinery.ModuleSpec, name: str, home: str) -> bool:
    top = name.partition(".")[0]
    if top in OURS:
        return home in OURS and name.startswith(f"{HOME}.")
    if top == home:
        return True
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return bool(places) and not any(_is_installed(place) for place in places if place)


def _is_installed(place: str) -> bool:
    path = Path(place)
    roots = (Path(root) for root in _library_roots())
    return bool(set(INSTALLED) & set(path.parts)) or any(path.is_relative_to(root) for root in roots)


@functools.cache
def _library_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _content(spec: importlib.machinery.ModuleSpec) -> bytes:
    """Return the file's content; of a module that this process has imported, the content that was read first."""
    module = sys.modules.get(spec.name)
    specification = getattr(module, "__spec__", None)
    if specification is not None and spec.name in _loaded and _loaded[spec.name][0] is specification:
        return _loaded[spec.name][1]
    content = b""
    if spec.has_location and spec.origin and hasattr(spec.loader, "get_data"):
        content = spec.loader.get_data(spec.origin)  # type: ignore[union-attr]
    if specification is not None:
        _loaded[spec.name] = specification, content
    return content


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _references(spec: importlib.machinery.ModuleSpec, name: str, content: bytes) -> tuple[list[str], dict[str, bytes]]:
    """Return the modules that a module's source may import, and the files beside it that its texts name."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # importing it will say so
        return [], {}
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    folder = Path(spec.origin or "").parent
    imports: list[str] = []
    files: dict[str, bytes] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports += _imported_from(node, package)
        elif isinstance(node, ast.Call) and _called(node) in DYNAMIC:
            # Which modules it loads is known only when it runs: all that are beside it count.
            imports += _beside(folder, package)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            imports += [node.value] if "." in node.value and _is_dotted(node.value) else []
            files |= _named(folder, node.value)
    return [one for whole in imports for one in (*_parents(whole), whole)], files


def _imported_from(node: ast.ImportFrom, package: str) -> list[str]:
    origin = node.module or ""
    if node.level:
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - node.level + 1])
        origin = ".".join(filter(None, (base, origin)))
    return [origin, *(f"{origin}.{alias.name}" for alias in node.names if alias.name != "*")] if origin else []


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _is_dotted(text: str) -> bool:
    return len(text) < LONGEST_TEXT and all(part.isidentifier() for part in text.split("."))


def _beside(folder: Path, package: str) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py") if package else folder.glob("*.py")):
        parts = [*package.split("."), *path.relative_to(folder).with_suffix("").parts]
        yield ".".join(part for part in parts if part and part != "__init__")


def _named(folder: Path, text: str) -> dict[str, bytes]:
    """Return the file that ``text`` names, such as a JSON file with the layers' sizes, if there is one."""
    if not text or len(text) > LONGEST_TEXT or "\n" in text or "\0" in text or Path(text).suffix in ("", ".py"):
        return {}
    for path in (folder / text, Path(text)):
        if path.is_file():
            size, changed = path.stat().st_size, path.stat().st_mtime_ns
            return {f"/{text}": path.read_bytes() if size <= NAMED_BYTES else f"{size} {changed}".encode()}
    return {}


def _packages(content: bytes) -> set[str]:
    """Return the installed packages that a source imports, by their top names."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return set()
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - set(OURS)


@functools.cache
def _version(package: str) -> str:
    """Return the version of the distribution that is named as its package, as most are; else an empty string."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def _registered() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for group in GROUPS:
        for point in entry_points.of_group(f"kondense.{group}"):
            if point.value.partition(".")[0] not in OURS:
                found[point.name] = (*found.get(point.name, ()), point.value)
    return found
