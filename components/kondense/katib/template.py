"""A trial's command: the template with the values of one trial.

Only the first container named ``primaryContainerName`` runs on this machine, once per replica; image, volumes,
resources and probes apply to the cluster only.
"""

import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from kondense.errors import InputError, KondenseError
from kondense.json_text import SHOWN
from kondense.katib import replicas
from kondense.katib.spec import Experiment
from kondense.katib.template_rules import INDEXED, META_REFERENCE

PYTHON = ("python", "python3")
VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
DEFAULT_BACKOFF_LIMIT = 6  # a Job's default number of retries
SIGNAL_BASE = 128  # a container's exit code is 128 + n if signal n ended its process
PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^{}]+)\}")
LONGEST = 2**21  # characters of a word or a variable; Linux starts no program with a word of more than 2**17
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TrialCommand:
    """The command of one trial."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    deadline_s: float | None  # the Job's activeDeadlineSeconds, over all its attempts
    attempts: int  # the Job's backoffLimit + 1
    failing: Callable[[int], bool] = lambda code: False  # whether an exit code ends the Job without further attempts
    working_directory: Path | None = None  # of this machine, if the template's is mapped
    workers: tuple["TrialCommand", ...] = ()  # the other replicas of a PyTorchJob or TrainJob

    def fails(self, code: int) -> bool:
        """Return whether the Job ends after an attempt with this exit code; a signal's number is negative."""
        return self.failing(SIGNAL_BASE - code if code < 0 else code)


def container(experiment: Experiment) -> Mapping[str, Any]:
    """Return the template's primary container, or the first one if none has that name."""
    found = replicas.replicas(experiment.trial_spec, str(experiment.template.get("primaryContainerName")))
    pod = (experiment.trial_spec.get("spec") or {}).get("template")
    return found[0].container if found else (replicas.containers(pod) or [{}])[0]


@dataclass(frozen=True)
class LocalChanges:
    """What a run on this machine puts in the place of the image's.

    Args:
        maps: paths of this machine by those of the image, for commands, variables and working directories.
        command: instead of the primary container's command, for one that only the image knows.
    """

    maps: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    def mapped(self, text: str) -> str:
        """Return a text with the paths of this machine."""
        for path, local in self.maps.items():
            here = os.path.abspath(local)
            text = re.sub(rf"(?<![\w./-]){re.escape(path.rstrip('/'))}(?![\w.-])", here.replace("\\", r"\\"), text)
        return text


NO_CHANGES = LocalChanges()


def render(
    experiment: Experiment,
    name: str,
    assignments: Mapping[str, str],
    *,
    environment: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    metrics_file: Path | None = None,
    changes: LocalChanges = NO_CHANGES,
) -> TrialCommand:
    """Return the command of one trial.

    Args:
        experiment: a checked Experiment.
        name: the trial's name, ``${trialSpec.Name}``.
        assignments: every parameter's value as Katib's string.
        environment: this machine's variables. They replace the variables that the template reads from a Secret or
            a ConfigMap, by their own names.
        overrides: variables that take precedence over the template's literals, such as a local store's address.
        metrics_file: replaces the path of the File or TensorFlowEvent collector, because on a cluster each pod has its
            own.
        changes: what replaces the image's paths and command.
    """
    values = _values(experiment, name, assignments)
    primary, is_job = str(experiment.template.get("primaryContainerName")), experiment.trial_spec.get("kind") == "Job"
    found = replicas.replicas(experiment.trial_spec, primary, 0 if is_job else _free_port())
    found = found or [replicas.Replica(container(experiment))]
    limits = _filled(replicas.limits(experiment.trial_spec), values)
    path = {experiment.collector.path: str(metrics_file)} if metrics_file is not None else {}
    made = []
    for number, replica in enumerate(found):
        filled = _filled(replica.container, values)
        own = path if number == 0 else {place: f"{file}.{number}" for place, file in path.items()}
        variables = {**_variables(filled, environment, overrides or {}), **replica.variables}
        made.append(_command(filled, variables, own, changes))
    deadline = limits.get("activeDeadlineSeconds")
    return replace(
        made[0],
        deadline_s=None if deadline is None else float(deadline),
        attempts=1 + int(limits.get("backoffLimit", DEFAULT_BACKOFF_LIMIT)),
        failing=partial(_ends_the_job, limits.get("podFailurePolicy") or {}, str(found[0].container.get("name", ""))),
        workers=tuple(made[1:]),
    )


def check(experiment: Experiment, *, environment: Mapping[str, str], changes: LocalChanges = NO_CHANGES) -> None:
    """Refuse an Experiment whose trials could not be started, with the longest values of its parameters.

    Raises:
        InputError: a word of the command would be too long, or is none that a process can have, or the template has not
            the form of its kind.
    """
    assignments = {}
    for parameter in experiment.document["spec"]["parameters"]:
        space = parameter["feasibleSpace"]
        assignments[parameter["name"]] = max((space.get("list") or [space.get("max", "")]), key=len)
    try:
        made = render(experiment, f"{experiment.name}-check", assignments, environment=environment, changes=changes)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, KondenseError):
            raise
        kind, text = experiment.trial_spec.get("kind"), ascii(str(error))[:SHOWN]
        raise InputError(
            f"spec.trialTemplate.trialSpec must be a {kind}, but: {type(error).__name__}: {text}."
        ) from None
    for command in (made, *made.workers):
        for name, value in command.environment.items():
            if not isinstance(name, str) or not name or "=" in name or "\0" in name + value:
                raise InputError(f"a trial's variable must have a name, and no zero byte, but got {name!r}.")
        for word in command.argv:
            if "\0" in word:
                raise InputError(f"a word of a trial's command must have no zero byte, but got {word[:SHOWN]!r}.")


def _command(
    filled: Mapping[str, Any], variables: dict[str, str], files: Mapping[str, str], changes: LocalChanges
) -> TrialCommand:
    """Return the command of one replica."""
    command = [*changes.command] or [str(item) for item in filled.get("command") or []]
    argv = [*command, *(str(item) for item in filled.get("args") or [])]
    argv = [_expanded(item, variables) for item in argv]
    for place, file in files.items():
        argv = [item.replace(place, file) for item in argv]
        variables = {name: value.replace(place, file) for name, value in variables.items()}
    named = {item["name"] for item in filled.get("env") or []}
    variables = {name: changes.mapped(value) if name in named else value for name, value in variables.items()}
    argv = [changes.mapped(item) for item in argv]
    if argv and argv[0] in PYTHON:
        argv[0] = sys.executable
    directory = str(filled.get("workingDir") or "")
    local = changes.mapped(directory)
    return TrialCommand(
        argv=tuple(argv),
        environment=variables,
        deadline_s=None,
        attempts=1,
        working_directory=Path(local) if local != directory else None,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((replicas.HOST, 0))
        return int(probe.getsockname()[1])


def _ends_the_job(policy: Mapping[str, Any], name: str, code: int) -> bool:
    """Return whether a Job's podFailurePolicy ends it if the container ``name`` exits with a code.

    The first matching rule counts. Rules on conditions of the pod never match a process of this machine.
    """
    for rule in policy.get("rules") or []:
        codes = rule.get("onExitCodes") or {}
        if codes.get("containerName", name) != name or not codes:
            continue
        if (code in codes["values"]) == (codes["operator"] == "In"):
            return bool(rule["action"] == "FailJob")
    return False


def _values(experiment: Experiment, name: str, assignments: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the trial parameters by their names in the template."""
    values = {}
    for parameter in experiment.template.get("trialParameters", []):
        meta = META_REFERENCE.search(parameter["reference"])
        reference = parameter["reference"]
        values[parameter["name"]] = _metadata(experiment, name, meta[1]) if meta else assignments[reference]
    return values


def _metadata(experiment: Experiment, name: str, key: str) -> str:
    spec = experiment.trial_spec
    plain = {
        "Name": name,
        "Namespace": experiment.namespace,
        "Kind": spec.get("kind", ""),
        "APIVersion": spec.get("apiVersion", ""),
    }
    indexed = INDEXED.fullmatch(key)
    kind = indexed[1] if indexed else key
    if kind in plain:  # Katib overlooks an index of these
        return str(plain[kind])
    assert indexed, f"the rules accept {key!r}"
    return str(spec.get("metadata", {}).get(kind.lower(), {})[indexed[2]])


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Return a copy of ``value`` with every ``${trialParameters.x}`` replaced, but not those in the values."""
    if isinstance(value, str):
        return _replaced(value, PLACEHOLDER, lambda match: values.get(match[1], match[0]))
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    return [_filled(item, values) for item in value] if isinstance(value, list) else value


def _variables(
    primary: Mapping[str, Any], environment: Mapping[str, str], overrides: Mapping[str, str]
) -> dict[str, str]:
    variables = {**environment, **overrides}
    for item in primary.get("env") or []:
        if "value" in item and item["name"] not in overrides:
            variables[item["name"]] = _expanded(str(item["value"]), variables)
    # Katib's webhook sets it on a cluster; with it a trial would push its metrics to a service that does not exist.
    variables.pop("KATIB_TRIAL_NAME", None)
    # The trial must use this code and this interpreter, independent of the working directory.
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), variables.get("PYTHONPATH", "")]))
    return variables


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` as Kubernetes does: unknown names are kept, ``$$`` is one ``$``."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _replaced(text, VARIABLE, value)


def _replaced(text: str, pattern: re.Pattern[str], value: Callable[[re.Match[str]], str]) -> str:
    """Return a text with what stands for each match, if it is not too long."""
    length = len(text) + sum(len(value(match)) - len(match[0]) for match in pattern.finditer(text))
    if length > LONGEST:
        rule = f"must have at most {LONGEST:,} characters with its values"
        raise InputError(f"a word or variable of a trial's command {rule}, but has {length:,}: {text[:SHOWN]!r}.")
    return pattern.sub(value, text)
