"""Mutation tests: small changes of a module, each of which the module's unit tests must find.

``make mutants`` mutates a copy of the tree with cosmic-ray's operators; README.md of this folder has the figures. The
libraries are imported once, and the tests that run a mutant's function, the fastest first, in a forked process.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import math
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.support.workers import limit_memory

ROOT = Path(__file__).parents[1]
PRELOADED = ("torch", "numpy", "scipy.special", "constriction", "yaml", "pytest", "hypothesis", "safetensors.torch")
OURS = ("kondense", "kondense_pipelines", "tests", "benchmarks", "__main__", "conftest")  # imported anew for a mutant
SURVIVED, KILLED, INVALID, SLOW = "survived", "killed", "invalid", "killed by time"


@dataclass(frozen=True)
class Mutant:
    """One changed module: the text of the module and the lines that differ."""

    operator: str
    line: int
    text: str

    def difference(self, original: str) -> str:
        """Return the changed lines."""
        lines = difflib.unified_diff(original.splitlines(), self.text.splitlines(), n=0, lineterm="")
        return "\n".join(line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@")


@dataclass(frozen=True)
class Place:
    """A place of a module that one of cosmic-ray's operators changes: the number of its places before, and the line."""

    name: str
    operator: Any
    occurrence: int
    line: int

    def mutant(self, text: str) -> Mutant | None:
        """Return the module after the change; None if it is no program or one of which Python itself warns."""
        from cosmic_ray.mutating import mutate_code

        changed = mutate_code(text, self.operator, self.occurrence)
        with contextlib.suppress(SyntaxError, SyntaxWarning), warnings.catch_warnings(action="error"):
            compile(changed or "", "mutant", "exec")
            return Mutant(self.name, self.line, changed) if changed and changed != text else None
        return None


def places(text: str) -> list[Place]:
    """Return the places of a module, except for types in annotations, whose change no test can find."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    types = {place for node in ast.walk(ast.parse(text)) for place in _annotated(node)}
    nodes, found = list(ast_nodes(get_ast(text))), []
    for name in sorted(plugins.operator_names()):
        kind = plugins.get_operator(name)
        if kind.arguments() or "NoOp" in name:
            continue
        starts = [start for node in nodes for start, _ in kind().mutation_positions(node)]
        short = name.removeprefix("core/")
        found += [Place(short, kind(), at, start[0]) for at, start in enumerate(starts) if start not in types]
    return found


def _annotated(node: ast.AST) -> Iterator[tuple[int, int]]:
    """Yield the places in the annotations of a node, as line and column."""
    for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
        if isinstance(annotation, ast.AST):
            first, last = annotation.lineno, annotation.end_lineno or annotation.lineno
            for line in range(first, last + 1):
                start = annotation.col_offset if line == first else 0
                yield from ((line, column) for column in range(start, annotation.end_col_offset or 0))


@dataclass(frozen=True)
class Baseline:
    """What the tests of a module do without a mutant: the lines of the module that each runs, the fastest first."""

    lines: dict[str, set[int]]
    modules: list[str]

    def reaching(self, mutant: Mutant, original: str) -> list[str]:
        """Return the tests that run a function with the mutant's line, or all where it is outside of functions."""
        spans = [
            range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
            for node in ast.walk(ast.parse(original))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        inner = min((span for span in spans if mutant.line in span), key=len, default=None)
        return [name for name, lines in self.lines.items() if inner is None or not lines.isdisjoint(inner)]


class Recorder:
    """A plugin of pytest that notes the time of each test and the lines of one module that it runs."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = str(path), dict[str, set[int]]()
        self.seconds: dict[str, float] = {}

    def pytest_runtest_setup(self, item: Any) -> None:
        """Begin with the fixtures of a test."""
        lines = self.lines.setdefault(item.nodeid, set())

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            if frame.f_code.co_filename != self.path:
                return None
            lines.add(frame.f_lineno)
            return trace

        sys.settrace(trace)
        self.seconds[item.nodeid] = -time.monotonic()

    def pytest_runtest_teardown(self, item: Any) -> None:
        """End after the test."""
        self.seconds[item.nodeid] += time.monotonic()
        sys.settrace(None)


def outcome(tests: list[str], tree: Path, limit_s: float, plugins: Sequence[Any] = ()) -> str:
    """Run ``tests`` in a forked process whose Kondense is the tree's."""
    child = os.fork()
    if child == 0:
        _test(tests, tree, limit_s, plugins)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return SLOW if os.WTERMSIG(status) == signal.SIGALRM else KILLED
    # 2: the tests could not be collected, mostly a type annotation that is no expression any more.
    return {0: SURVIVED, 1: KILLED, 2: INVALID}.get(os.WEXITSTATUS(status), KILLED)


def _test(tests: list[str], tree: Path, limit_s: float, plugins: Sequence[Any]) -> NoReturn:
    code = 70
    try:
        signal.setitimer(signal.ITIMER_REAL, limit_s)  # no handler: the process ends
        limit_memory()  # a mutant that loops may grow all the while
        os.chdir(tree)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        # pytest-timeout would set the same timer anew for each test, and to far more seconds.
        settings = ["-x", "-q", "-p", "no:randomly", "-p", "no:xdist", "--timeout=0", *tests]
        code = int(importlib.import_module("pytest").main(settings, plugins=list(plugins)))
        for plugin in plugins:
            known = [name for name in sys.modules if name.partition(".")[0] not in OURS]
            (tree / "baseline").write_bytes(pickle.dumps((plugin.lines, plugin.seconds, known)))
    finally:
        os._exit(code)


def baseline(module: str, tests: list[str], tree: Path, limit_s: float) -> Baseline:
    """Run the tests without a mutant."""
    if (first := outcome(tests, tree, limit_s, [Recorder(tree / module)])) != SURVIVED:
        raise SystemExit(f"error: the tests of {module} must pass without a mutant, but the outcome is {first!r}.")
    lines, seconds, modules = pickle.loads((tree / "baseline").read_bytes())  # written by the process above
    return Baseline({name: lines[name] for name in sorted(lines, key=seconds.__getitem__)}, modules)


def examine(module: str, tests: list[str], tree: Path, options: argparse.Namespace) -> float:
    """Print the survivors of a module's mutants and return the share that was killed."""
    path = tree / module
    original = path.read_text()
    known = baseline(module, tests, tree, 10 * options.limit)
    for name in known.modules:
        with contextlib.suppress(Exception):  # what cannot be imported alone is imported by the tests
            importlib.import_module(name)
    chosen = places(original)
    total = len(chosen)
    random.Random(0).shuffle(chosen)
    chosen = chosen[options.skip : options.sample or total]
    counts = dict.fromkeys((SURVIVED, KILLED, INVALID, SLOW), 0)
    ends = time.monotonic() + options.seconds
    for place in chosen:
        if time.monotonic() > ends:
            break
        if (mutant := place.mutant(original)) is None:
            continue
        path.write_text(mutant.text)
        reaching = known.reaching(mutant, original)
        counts[(result := outcome(reaching, tree, options.limit) if reaching else SURVIVED)] += 1
        if result == SURVIVED:
            note = "" if reaching else " (no test runs it)"
            print(f"{module}:{mutant.line} {mutant.operator}{note}\n{mutant.difference(original)}", flush=True)
    path.write_text(original)
    valid = sum(counts.values()) - counts[INVALID]
    share = 1 - counts[SURVIVED] / max(valid, 1)
    print(f"{module}: {valid - counts[SURVIVED]} of {valid} killed ({share:.1%}); {total} places, {counts}", flush=True)
    return share


def main() -> int:
    """Examine the modules of ``[tool.kondense.mutants]`` in pyproject.toml, or those that are named."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["kondense"]["mutants"]
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("modules", nargs="*", help="words that a module's path must have one of; all by default")
    parser.add_argument("--sample", type=int, default=0, help="mutants per module, drawn with seed 0; 0: all")
    parser.add_argument("--skip", type=int, default=0, help="mutants of each module that are left out, the first drawn")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which a module's next mutant is not run")
    parser.add_argument("--limit", type=float, default=120, help="seconds for the tests of one mutant")
    parser.add_argument("--least", type=float, default=0.9, help="share that must be killed")
    options = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    sys.dont_write_bytecode = True  # a mutant of the same second and size would pass for its predecessor
    shares = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tree = Path(directory) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", ".cache", "__pycache__", ".hypothesis", "build", ".tools")
        shutil.copytree(ROOT, tree, ignore=ignored)
        # Kondense must come from the copy: what the environment has installed stands behind it.
        sys.path[:] = [str(tree / "components"), str(tree / "pipelines"), *(each for each in sys.path if each)]
        for module, tests in settings.items():
            if not options.modules or any(word in module for word in options.modules):
                shares.append(examine(module, tests, tree, options))
    return 0 if min(shares, default=0.0) >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
