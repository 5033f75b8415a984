"""A trial's command: the template's Job with the values of one trial.

Only the first container named ``primaryContainerName`` runs on this machine; image, volumes, resources and probes apply
to the cluster only.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kondense.katib.spec import Experiment
from kondense.katib.template_rules import INDEXED, META_REFERENCE

PYTHON = ("python", "python3")
VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
DEFAULT_BACKOFF_LIMIT = 6  # a Job's default number of retries
SIGNAL_BASE = 128  # a container's exit code is 128 + n if signal n ended its process
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TrialCommand:
    """The command of one trial."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    deadline_s: float | None  # the Job's activeDeadlineSeconds, over all its attempts
    attempts: int  # the Job's backoffLimit + 1
    failing: Callable[[int], bool] = lambda code: False  # whether an exit code ends the Job without further attempts

    def fails(self, code: int) -> bool:
        """Return whether the Job ends after an attempt with this exit code; a signal's number is negative."""
        return self.failing(SIGNAL_BASE - code if code < 0 else code)


def container(experiment: Experiment) -> Mapping[str, Any]:
    """Return the template's primary container, or the first one if none has that name."""
    containers: list[Mapping[str, Any]] = _pod(experiment.trial_spec).get("containers") or [{}]
    named = [item for item in containers if item.get("name") == experiment.template.get("primaryContainerName")]
    return (named or containers)[0]


def render(
    experiment: Experiment,
    name: str,
    assignments: Mapping[str, str],
    *,
    environment: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    metrics_file: Path | None = None,
) -> TrialCommand:
    """Return the command of one trial.

    Args:
        experiment: a checked Experiment.
        name: the trial's name, ``${trialSpec.Name}``.
        assignments: every parameter's value as Katib's string.
        environment: this machine's variables. They replace the variables that the template reads from a Secret or
            a ConfigMap, by their own names.
        overrides: variables that take precedence over the template's literals, such as a local store's address.
        metrics_file: replaces the File collector's path, because on a cluster each pod has its own file.
    """
    values = _values(experiment, name, assignments)
    primary = _filled(container(experiment), values)
    variables = _variables(primary, environment, overrides or {})
    argv = [str(item) for item in [*(primary.get("command") or []), *(primary.get("args") or [])]]
    argv = [_expanded(item, variables) for item in argv]
    if metrics_file is not None:
        argv = [item.replace(experiment.collector.path, str(metrics_file)) for item in argv]
        variables = {k: v.replace(experiment.collector.path, str(metrics_file)) for k, v in variables.items()}
    if argv and argv[0] in PYTHON:
        argv[0] = sys.executable
    job = _filled(experiment.trial_spec.get("spec", {}), values)
    deadline = job.get("activeDeadlineSeconds")
    return TrialCommand(
        argv=tuple(argv),
        environment=variables,
        deadline_s=None if deadline is None else float(deadline),
        attempts=1 + int(job.get("backoffLimit", DEFAULT_BACKOFF_LIMIT)),
        failing=partial(_ends_the_job, job.get("podFailurePolicy") or {}, str(container(experiment).get("name", ""))),
    )


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


def _pod(job: Mapping[str, Any]) -> Mapping[str, Any]:
    pod: Mapping[str, Any] = ((job.get("spec") or {}).get("template") or {}).get("spec") or {}
    return pod


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
    if key in plain:
        return str(plain[key])
    indexed = INDEXED.fullmatch(key)
    assert indexed, f"the rules accept {key!r}"
    return str(spec.get("metadata", {}).get(indexed[1].lower(), {})[indexed[2]])


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Return a copy of ``value`` with every ``${trialParameters.x}`` replaced."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"${{trialParameters.{name}}}", text)
        return value
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

    return VARIABLE.sub(value, text)
