"""The one container command: ``python -m kondense.cli STAGE --flags`` runs a stage on directories.

``--help`` imports no torch: the Configs are free of it, and the directories of a stage stand here.
Exit codes: 0, 1 when the stage failed, 2 for bad input, 3 when the output is written but short of what was asked,
143 after SIGTERM (outputs are then absent,
checkpoints stay, and the same command continues).
"""

import argparse
import dataclasses
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from kondense import failure
from kondense.config import Config, add_flags, flag, from_flags
from kondense.errors import EXPECTED, InputError, exit_code_of
from kondense.networks.allowed import allowing


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage's command needs to know without importing the stage; a test pins it to ``run``.

    Attributes:
        config: the name of the class in ``kondense.<stage>.config``.
        directories: the parameters of ``run`` that must be given; one ending in ``_dirs`` takes several.
        optional: those that may be left out.
        summary: one line of help.
    """

    config: str
    directories: tuple[str, ...]
    summary: str
    optional: tuple[str, ...] = ()


ALLOW = "--allow-network"
STAGES = {
    "data_prep": Stage("DataPrepConfig", ("dataset_dir",), "read, split and write a data set"),
    "train": Stage("TrainConfig", ("dataset_dir", "model_dir"), "train a network, or import a trained one"),
    "prune": Stage(
        "PruneConfig", ("dataset_dir", "model_dir", "pruned_dir"), "remove weights or channels", ("teacher_dir",)
    ),
    "distill": Stage(
        "DistillConfig",
        ("dataset_dir", "teacher_dir", "student_dir"),
        "train a small network on what large ones see",
        ("model_dir", "teacher_2_dir", "teacher_3_dir"),
    ),
    "quantize": Stage(
        "QuantizeConfig",
        ("dataset_dir", "model_dir", "quantized_dir"),
        "store weights, and compute, in few bits",
        ("teacher_dir",),
    ),
    "evaluate": Stage(
        "EvaluateConfig", ("dataset_dir", "model_dir", "candidate_dir"), "measure a candidate", ("teacher_dir",)
    ),
    "report": Stage("ReportConfig", ("candidate_dirs", "report_dir", "chosen_dir"), "compare candidates, choose one"),
    "publish": Stage(
        "PublishConfig", ("dataset_dir", "chosen_dir", "report_dir", "receipt_dir"), "publish behind a gate"
    ),
    "champion": Stage(
        "ChampionConfig", ("dataset_dir", "champion_dir"), "hold the published champion against new data"
    ),
    "katib_search": Stage(
        "KatibSearchConfig", ("dataset_dir", "model_dir", "search_dir"), "run a Katib Experiment, keep its best"
    ),
    "trial": Stage("TrialConfig", (), "all stages of one set of hyperparameters, for Katib"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all of ours are."""

    def error(self, message: str) -> NoReturn:
        """Tell the error and leave with exit code 2."""
        sys.exit(fail(message, 2))


def stage_config(name: str) -> type[Config]:
    """Return the Config class of a stage."""
    config: type[Config] = getattr(importlib.import_module(f"kondense.{name}.config"), STAGES[name].config)
    return config


def make_parser(name: str) -> Parser:
    """Return the parser of one stage's flags."""
    stage = STAGES[name]
    parser = Parser(prog=f"python -m kondense.cli {name}", description=f"{stage.summary}.", allow_abbrev=False)
    for directory in (*stage.directories, *stage.optional):
        several = directory.endswith("_dirs")
        parser.add_argument(
            flag(directory),
            type=Path,
            nargs="+" if several else None,
            required=directory in stage.directories,
            metavar="DIR",
            help="directories of artifacts" if several else "directory of an artifact",
        )
    parser.add_argument(
        ALLOW,
        action="append",
        default=[],
        metavar="PACKAGE.MODULE",
        help="import networks of this module, or package, that artifacts name (as KONDENSE_ALLOW_NETWORK)",
    )
    add_flags(parser, stage_config(name))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stage that the arguments name and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0 if given else 2
    name, *flags = given
    if name not in STAGES:
        return fail(f"stage must be one of {', '.join(STAGES)}, but got {name!r}.", 2)
    namespace = make_parser(name).parse_args(flags)
    try:
        config = from_flags(namespace, stage_config(name))
    except InputError as error:
        if name == "trial":  # a space may reach beyond what a trial takes, and where else would one read that
            from kondense.trial.reason import keep_reason

            keep_reason(namespace.store_uri or "", namespace.trial_name or "", error)
        return fail(str(error), 2)
    directories = {key: getattr(namespace, key) for key in (*STAGES[name].directories, *STAGES[name].optional)}
    with allowing(modules=namespace.allow_network):
        return run_stage(name, config, {key: value for key, value in directories.items() if value is not None})


def run_stage(name: str, config: Config, directories: dict[str, Any]) -> int:
    """Run a stage, print its metrics one a line, and return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    stage = importlib.import_module(f"kondense.{name}.stage")
    try:
        metrics = stage.run(config, **directories)
    except EXPECTED as error:
        return fail(str(error), exit_code_of(error))
    for metric, value in metrics.items():
        print(f"{metric}={value}")
    return 0


def usage() -> str:
    """Return the help that lists the stages."""
    width = max(map(len, STAGES))
    lines = [f"  {name:{width}}  {stage.summary}" for name, stage in STAGES.items()]
    return "\n".join(["usage: python -m kondense.cli STAGE --help", "", "stages:", *lines])


def fail(message: str, code: int) -> int:
    """Tell why the command fails and return ``code``."""
    failure.tell(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
