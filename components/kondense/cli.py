"""The container command: ``python -m kondense.cli STAGE --flags`` runs a stage on directories.

It is made from ``kondense.stages`` and the Configs, so ``--help`` imports no torch. Exit codes: 0; 1 if the stage
failed; 2 for bad input; 3 if the output is written but falls short of the request; 143 after SIGTERM (outputs are then
absent, checkpoints remain, and the same command continues).
"""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kondense import launch
from kondense.config import Config, add_flags, check_choice, flag, from_flags
from kondense.errors import EXPECTED, InputError, exit_code_of, meant
from kondense.failure import report_failure
from kondense.files import check_writable
from kondense.logging import to_stdout
from kondense.networks.allowed import allowing
from kondense.renamed import flag_names, refuse_old
from kondense.stages import STAGES, Stage
from kondense.usage import usage_told

ALLOW = "--allow-network"


class Parser(argparse.ArgumentParser):
    """A parser that reports errors as one line, as the stages do."""

    def error(self, message: str) -> NoReturn:
        """Report the error and exit with code 2."""
        sys.exit(fail(message, 2))


def make_parser(stage: Stage) -> Parser:
    """Return the parser of one stage's flags."""
    parser = Parser(prog=f"python -m kondense.cli {stage.name}", description=f"{stage.summary}.", allow_abbrev=False)
    for artifact in stage.directories:
        parser.add_argument(
            flag(artifact.directory),
            type=Path,
            nargs="+" if artifact.several else None,
            required=not artifact.optional,
            metavar="DIR",
            help="directories of artifacts" if artifact.several else f"directory of a {artifact.type} artifact",
        )
    parser.add_argument(
        ALLOW,
        action="append",
        default=[],
        metavar="PACKAGE.MODULE",
        help="import networks of this module, or package, that artifacts name (as KONDENSE_ALLOW_NETWORK)",
    )
    add_flags(parser, stage.config_class)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stage that the arguments name and return the exit code."""
    name, *flags = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    if name in ("", "-h", "--help"):
        print(usage())
        return 0 if name else 2
    launch.set_variables()
    try:
        check_choice("stage", name, tuple(STAGES))
        return run_command(STAGES[name], flags)
    except InputError as error:
        return fail(str(error), 2)


def run_command(stage: Stage, flags: Sequence[str]) -> int:
    """Run a stage with these flags and return the exit code.

    Raises:
        InputError: a parameter that breaks a rule.
    """
    parser = make_parser(stage)
    namespace, unknown = parser.parse_known_args(flags)
    try:
        refuse_old(stage.config_class.__name__, flag_names(unknown))
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{nearest_flag(stage, unknown)}")
        config = from_flags(namespace, stage.config_class)
    except InputError as error:
        if stage.name == "trial":  # a space may exceed the ranges of a trial, and Katib shows no reason
            from kondense.trial.reason import keep_reason

            keep_reason(namespace.store_uri or "", namespace.trial_name or "", error)
        raise
    paths = {artifact.directory: getattr(namespace, artifact.directory) for artifact in stage.directories}
    check_directories(stage, paths)
    with allowing(modules=namespace.allow_network), to_stdout():
        return run_stage(stage, config, {key: path for key, path in paths.items() if path is not None})


def check_directories(stage: Stage, paths: Mapping[str, Path | list[Path] | None]) -> None:
    """Raise InputError, naming the flag, unless inputs are directories and outputs can be."""
    for artifact in stage.directories:
        path = paths[artifact.directory]
        for each in path if isinstance(path, list) else [path] if path else []:
            if artifact in stage.outputs:
                check_writable(each)
            elif not each.is_dir():
                found = "is a file" if each.exists() else "does not exist"
                raise InputError(f"{flag(artifact.directory)} must be a directory, but {each} {found}.")


def nearest_flag(stage: Stage, unknown: Sequence[str]) -> str:
    """Return the question whether the flag was meant that is nearest to the first unknown one; "" if none is near."""
    flags = [ALLOW, *(flag(artifact.directory) for artifact in stage.directories)]
    flags += map(flag, stage.config_class.parameters())
    return meant(next((text.partition("=")[0] for text in unknown if text.startswith("--")), ""), flags)


def run_stage(stage: Stage, config: Config, directories: dict[str, Any]) -> int:
    """Run a stage, print its metrics, one per line, and return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with usage_told():
            metrics = launch.run(stage, config, directories)
    except EXPECTED as error:
        return fail(str(error), exit_code_of(error))
    for metric, value in metrics.items():
        print(f"{metric}={value}")
    return 0


def usage() -> str:
    """Return the help that lists the stages; one that cannot be imported is listed with the reason."""
    width = max(map(len, STAGES))
    lines = [f"  {name:{width}}  {summary(name)}" for name in STAGES]
    return "\n".join(["usage: python -m kondense.cli STAGE --help", "", "stages:", *lines])


def summary(name: str) -> str:
    """Return a stage's line of help."""
    try:
        return STAGES[name].summary
    except InputError as error:
        return f"unusable: {error}"


def fail(message: str, code: int) -> int:
    """Report why the command fails and return ``code``."""
    report_failure(message)
    return code


if __name__ == "__main__":
    # What lies in the working directory, such as a model of others, is not to be imported in place of a library.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    sys.exit(main())
