"""Mutation tests: small changes of a module, each of which the module's unit tests must find.

``make mutants`` mutates a copy of the tree with cosmic-ray's operators; README.md of this folder has the figures. The
large libraries are imported once, and each mutant's tests run in a forked process.
"""

import argparse
import contextlib
import difflib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PRELOADED = ("torch", "numpy", "scipy.special", "constriction", "yaml", "pytest", "hypothesis", "safetensors.torch")
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


def mutants(text: str) -> Iterator[Mutant]:
    """Yield every mutant of a module that cosmic-ray's operators know and that is a program."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    for name in sorted(plugins.operator_names()):
        kind = plugins.get_operator(name)
        if kind.arguments() or "NoOp" in name:
            continue
        operator = kind()
        positions = [place for node in ast_nodes(get_ast(text)) for place in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(positions):
            changed = mutate_code(text, operator, occurrence)
            with contextlib.suppress(SyntaxError):
                compile(changed or "", "mutant", "exec")
                if changed and changed != text:
                    yield Mutant(name.removeprefix("core/"), start[0], changed)


def outcome(tests: list[str], tree: Path, limit_s: float) -> str:
    """Run ``tests`` in a forked process whose Kondense is the tree's."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.setitimer(signal.ITIMER_REAL, limit_s)  # no handler: the process ends
            os.chdir(tree)
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            code = int(
                importlib.import_module("pytest").main(["-x", "-q", "-p", "no:randomly", "-p", "no:xdist", *tests])
            )
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return SLOW if os.WTERMSIG(status) == signal.SIGALRM else KILLED
    # 2: the tests could not be collected, mostly a type annotation that is no expression any more.
    return {0: SURVIVED, 1: KILLED, 2: INVALID}.get(os.WEXITSTATUS(status), KILLED)


def examine(module: str, tests: list[str], tree: Path, options: argparse.Namespace) -> float:
    """Print the survivors of a module's mutants and return the share that was killed."""
    path = tree / module
    original = path.read_text()
    if (first := outcome(tests, tree, options.limit)) != SURVIVED:
        raise SystemExit(f"error: the tests of {module} must pass without a mutant, but the outcome is {first!r}.")
    chosen = list(mutants(original))
    total = len(chosen)
    random.Random(0).shuffle(chosen)
    counts = dict.fromkeys((SURVIVED, KILLED, INVALID, SLOW), 0)
    for mutant in sorted(chosen[: options.sample or total], key=lambda each: each.line):
        path.write_text(mutant.text)
        counts[(result := outcome(tests, tree, options.limit))] += 1
        if result == SURVIVED:
            print(f"{module}:{mutant.line} {mutant.operator}\n{mutant.difference(original)}", flush=True)
    path.write_text(original)
    valid = sum(counts.values()) - counts[INVALID]
    share = 1 - counts[SURVIVED] / max(valid, 1)
    print(
        f"{module}: {valid - counts[SURVIVED]} of {valid} killed ({share:.1%}); {total} mutants, {counts}", flush=True
    )
    return share


def main() -> int:
    """Examine the modules of ``[tool.kondense.mutants]`` in pyproject.toml, or those that are named."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["kondense"]["mutants"]
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("modules", nargs="*", help="words that a module's path must have one of; all by default")
    parser.add_argument("--sample", type=int, default=0, help="mutants per module, drawn with seed 0; 0: all")
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
