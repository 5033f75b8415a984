"""The preflight of a run: what is possible is tried in a process with torch, in seconds, before any work."""

import collections
import dataclasses
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kondense.config import Config
from kondense.errors import InputError
from kondense.json_text import json_object
from kondense.networks.allowed import is_imported
from kondense.preflight.request import BENT, DOUBTFUL, IMPOSSIBLE, POSSIBLE, UNTRIED, Check, Request, Step
from kondense.printable import printable
from kondense.scratch import scratch_directory
from kondense.training.settings import TrainingConfig
from rich import box
from rich.console import Console
from rich.table import Table

from kondense_pipelines.graphs.candidates import Plan, Task
from kondense_pipelines.graphs.parameters import read_settings
from kondense_pipelines.local.interrupted import keep_checks, kept_checks
from kondense_pipelines.local.stage_process import run_module
from kondense_pipelines.local.steps import reason_for
from kondense_pipelines.local.warm import WarmServer
from kondense_pipelines.terminal import plain

MARK = "check "  # as kondense.preflight prints it
STYLES = {POSSIBLE: "green", BENT: "yellow", DOUBTFUL: "yellow", IMPOSSIBLE: "red", UNTRIED: "dim"}
TELLS = "preflight: every step is tried on a few random images (--no-check skips this)"
EFFORT = {  # parameters that say how long and with what a step works, not what it makes
    *(field.name for field in dataclasses.fields(TrainingConfig)),
    *("steps", "trial_epochs", "sparse_epochs", "rounds", "rounding_steps", "calibration_images"),
}
TAIL = 50  # lines of the process's output that an error is looked for in


@dataclasses.dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        checks: in order.
        seconds: time taken.
    """

    checks: Sequence[Check]
    seconds: float

    @property
    def refusals(self) -> list[Check]:
        """The checks for which the run cannot begin."""
        return [check for check in self.checks if check.refused]

    @property
    def told(self) -> list[Check]:
        """The checks that a person should know of."""
        return [check for check in self.checks if check.state in (BENT, DOUBTFUL, IMPOSSIBLE)]

    @property
    def memory_bytes(self) -> int:
        """The estimated peak of the memory of the steps that train; 0 if there is no estimate."""
        return max((check.memory_bytes for check in self.checks), default=0)

    @property
    def takes(self) -> str:
        """What the steps that train take, in words; "" if there is no estimate."""
        if not self.memory_bytes:
            return ""
        seconds = sum(check.run_s for check in self.checks)
        lasting = f"{duration(seconds)} on this machine and " if seconds else ""
        return f"training takes about {lasting}{megabytes(self.memory_bytes)} of memory, estimated from single steps"

    @property
    def note(self) -> str:
        """What was changed, for the report; "" if nothing was."""
        return " ".join(f"{check.name}: {check.note}" for check in self.checks if check.state == BENT)

    def applied(self, configs: Mapping[str, Config]) -> dict[str, Config]:
        """Return the Configs with the defaults that were lowered to what is possible, and a note in the report."""
        changed = dict(configs)
        for check in self.checks:
            for step, values in check.changes.items():
                changed[step] = dataclasses.replace(changed[step], **values)
        if self.note:
            changed["report"] = changed["report"].updated({"note": self.note})
        return changed

    def table(self) -> Table:
        """Return the checks as a table."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=None)
        for heading in ("tried", "result", "s", "trains for", "memory", ""):
            left = heading in ("tried", "result", "")
            wraps = heading in ("tried", "")
            table.add_column(heading, justify="left" if left else "right", no_wrap=not wraps, overflow="fold")
        for check in self.checks:
            state = f"[{STYLES[check.state]}]{check.state}[/]"
            lasts = duration(check.run_s) if check.run_s else ""
            memory = megabytes(check.memory_bytes) if check.memory_bytes else ""
            table.add_row(check.name, state, f"{check.seconds:.1f}", lasts, memory, plain(check.note))
        return table


def duration(seconds: float) -> str:
    """Return a time as ``12 s``, ``4 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def megabytes(count: float) -> str:
    """Return a size as ``740 MB`` or ``3.2 GB``."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def request_for(
    configs: Mapping[str, Config], plan: Plan, settings: Sequence[str] = (), candidates: str | None = None
) -> Request:
    """Return what a preflight of a run examines.

    Args:
        configs: the Config of every step.
        plan: the candidates.
        settings: ``step.field=value`` texts of the user, which are never changed.
        candidates: the standard candidates that the user named; None for all, which he did not ask for one by one.
    """
    stated = read_settings(settings)
    named = [name.strip() for name in candidates.split(",")] if candidates else []
    steps = {name: [_step(task, configs, stated, plan) for task in tasks] for name, tasks in plan.candidates.items()}
    return Request(
        data_prep=configs["data_prep"].to_dict(),
        train=configs["train"].to_dict(),
        candidates=steps,
        asked=[name for name in plan.candidates if name in (*named, *plan.recipes)],
        uint8_input=bool(configs["evaluate"].to_dict()["uint8_input"]),
    )


def _step(task: Task, configs: Mapping[str, Config], stated: Mapping[str, Mapping[str, str]], plan: Plan) -> Step:
    values = {**(configs[task.step].to_dict() if task.step in configs else {}), **task.overrides}
    of_a_recipe = any(task in plan.candidates[name] for name in plan.recipes)
    asked = [*stated.get(task.step, {}), *(task.overrides if of_a_recipe else ())]
    if of_a_recipe and "sparsity" not in asked:
        asked.append("sparsity")  # a recipe means the same wherever it is read
    return Step(task.name, task.step, task.stage, values, any(field not in EFFORT for field in asked), asked)


def is_installed() -> bool:
    """Return whether this machine has what a preflight needs."""
    return all(importlib.util.find_spec(name) for name in ("torch", "onnxruntime", "torchvision"))


def examined(request: Request, server: WarmServer | None = None) -> Preflight:
    """Return what is possible.

    Args:
        request: what to examine.
        server: forks the process; without it an interpreter is started.

    Raises:
        InputError: the process ended before its end; the text gives its last error.
    """
    began = time.monotonic()
    checks: list[Check] = []
    others: collections.deque[str] = collections.deque(maxlen=TAIL)

    def read(line: str) -> None:
        if line.startswith(MARK):
            checks.append(Check(**json_object(line.removeprefix(MARK), "a check")))
        else:
            others.append(line)

    with scratch_directory("preflight") as scratch:
        path = scratch / "request.json"
        path.write_text(request.to_json(), encoding="utf-8")
        code = run_module(["kondense.preflight", str(path)], {}, read, server)
    if code:
        raise InputError(f"the preflight could not end: {reason_for(code, list(others))}")
    return Preflight(checks, time.monotonic() - began)


def check_places(request: Request) -> None:
    """Raise InputError if a data set's files, or the model to import, are said to be where this machine has none."""
    source = str(request.data_prep.get("source", ""))
    place = Path(source).expanduser()
    if source and "://" not in source and not place.is_dir():
        why = "which is a file: unpack it" if place.is_file() else "which does not exist"
        raise InputError(f"source must be a directory or a URI such as s3://bucket/prefix, but got {source}, {why}.")
    imported = str(request.train.get("import_uri", ""))
    place = Path(imported)
    if imported and "://" not in imported and not ((place / "model.json").is_file() or place.is_file()):
        why = "which has no model.json" if place.is_dir() else "which does not exist"
        raise InputError(
            "import_uri must be the directory of a model artifact, a file of weights or a URI such as"
            f" s3://bucket/model, but got {imported}, {why}."
        )


def refuse(preflight: Preflight) -> None:
    """Raise InputError with the first check for which the run cannot begin."""
    for check in preflight.refusals:
        more = len(preflight.refusals) - 1
        others = f" ({more} more: {', '.join(each.name for each in preflight.refusals[1:])})" if more else ""
        raise InputError(f"{check.name} is impossible: {check.note}{others}")


def before_work(
    request: Request, console: Console, server: WarmServer | None = None, directory: Path | None = None
) -> Preflight:
    """Examine a run, tell what was changed or cannot be made, and refuse what the user asked for in vain.

    Args:
        request: what to examine.
        console: shows it.
        server: forks the process; without it an interpreter is started.
        directory: of the run, which may have been examined before it was interrupted there.

    Raises:
        InputError: the network does not fit the images or cannot be trained or exported, or what the user asked for is
            impossible.
    """
    check_places(request)
    kept = kept_checks(directory, request) if directory else []
    if not kept:
        console.print(f"  {TELLS}", highlight=False)
    preflight = Preflight(kept, 0.0) if kept else examined(request, server)
    if directory and not kept:
        keep_checks(directory, request, preflight.checks)
    refuse(preflight)
    for check in preflight.told:
        console.print(f"[yellow]![/] {plain(check.name)}: {plain(check.note)}", highlight=False, soft_wrap=True)
    took = "  as before" if kept else f"{preflight.seconds:6.1f} s"
    console.print(f"[green]✓[/] {'preflight':32} {took}", highlight=False)
    if preflight.takes:
        console.print(f"  {preflight.takes}", highlight=False, soft_wrap=True)
    return preflight


def before_compiling(request: Request) -> Preflight:
    """Examine a run that another machine will make; nothing is tried if torch or the network's code is not here.

    Raises:
        InputError: as ``before_work``.
    """
    network = str(request.train["network"])
    module = network.partition(":")[0] if is_imported(network) else ""
    if not is_installed() or (module and not _is_importable(module)):
        return Preflight((), 0.0)
    preflight = examined(request)
    refuse(preflight)
    for check in preflight.told:
        print(printable(f"warning: {check.name}: {check.note}"), file=sys.stderr)
    return preflight


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False
