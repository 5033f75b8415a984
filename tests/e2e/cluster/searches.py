"""Experiments of Katib: made small, applied, followed to their end, their trials and pods found."""

import json
from pathlib import Path
from typing import Any

import yaml
from kondense.cluster.names import RUN
from kondense.katib_search.cluster import LABEL
from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.experiment import Plan, build_plan
from kondense.katib_search.job import COMMAND, set_variable, trial_container
from kondense.katib_search.trials import ended, read_trials
from kondense.search.ledger import identity
from kondense.search.run import TrialRecord

from tests.e2e.cluster import inputs
from tests.e2e.cluster.diagnosis import termination_message
from tests.e2e.cluster.failure import CheckError, check
from tests.e2e.cluster.kubectl import EXPERIMENT_KIND, TRIAL_KIND
from tests.e2e.cluster.options import MANIFESTS
from tests.e2e.cluster.session import Session

EXPERIMENTS = MANIFESTS / "experiments"
MAX_EPOCHS = 3  # of the highest rung: two rungs, 1 and 3 epochs
RUNGS = ("bohb", "hyperband")
CONTAINER = "trial"
RESUMED = "resumed at epoch"
# With rungs of 1 and 3 epochs a cycle of the brackets has 3 + 1 and 2 trials.
TRIALS = {"rungs": 6, "other": 4}


def files() -> list[Path]:
    """Return the Experiments of the repository."""
    return [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if path.stem != "kustomization"]


def small(session: Session, file: Path, label: str, **changes: Any) -> Plan:
    """Return an Experiment of the repository with few trials on the small data set.

    The project's own code changes it (``kondense.katib_search.experiment``).
    Jobs are kept, so that their logs can be read.

    Args:
        session: names it.
        file: in manifests/experiments.
        label: a short word in its name.
        changes: fields of KatibSearchConfig that outweigh the usual ones.
    """
    body = yaml.safe_load(file.read_text())
    given = body["metadata"]
    if (
        body["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"][1:]
        == COMMAND
    ):
        plan = _small_training(session, body, **changes)
    else:
        spec = body["spec"]
        spec.update(maxTrialCount=TRIALS["other"], parallelTrialCount=2, maxFailedTrialCount=2)
        container = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
        container["image"] = session.stage_image
        plan = Plan(body)
    plan.body["metadata"] = {  # type: ignore[index]  # a dict of our own
        "name": f"e2e-{label[:24]}-{session.stamp}",
        "labels": given.get("labels", {}) | {"app.kubernetes.io/part-of": "kondense"},
        "annotations": {RUN: session.stamp},
    }
    plan.spec["trialTemplate"]["retain"] = True
    return plan


def _small_training(session: Session, body: dict[str, Any], **changes: Any) -> Plan:
    dataset_uri, teacher_uri = inputs.ensure(session)
    rungs = body["spec"]["algorithm"]["algorithmName"] in RUNGS
    fields: dict[str, Any] = {
        "experiment": json.dumps(body),
        "run_id": session.stamp,
        "store_uri": store_uri(session),
        "image": session.stage_image,
        "network": session.options.network,
        "max_epochs": MAX_EPOCHS,
        "max_trials": TRIALS["rungs" if rungs else "other"],
        "parallel_trials": 2,
        "max_failed_trials": 2,
        "gpus": -1 if session.options.pretend_gpus else 0,
        **changes,
    }
    plan = build_plan(KatibSearchConfig(**fields), dataset_uri=dataset_uri, environment={})
    container = trial_container(plan.spec["trialTemplate"]["trialSpec"])
    if any(each["name"] == "TEACHER_URI" for each in container["env"]):
        set_variable(container, "TEACHER_URI", teacher_uri)
    return plan


def store_uri(session: Session) -> str:
    """Return where the trials of this session keep checkpoints and models."""
    return session.place("trials")


def start(session: Session, plan: Plan) -> None:
    """Create the Experiment; it goes at the end."""
    pod = plan.spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    if any("configMap" in each for each in pod.get("volumes", ())):
        _create_script(session)
    else:
        session.undo("what trials keep", lambda: session.clear(store_uri(session)))
    session.delete_at_end(EXPERIMENT_KIND, plan.name)
    session.kubectl.create(dict(plan.body))


def _create_script(session: Session) -> None:
    """Apply the ConfigMap with the script of the decision tree."""
    documents = yaml.safe_load_all(session.kubectl("kustomize", str(EXPERIMENTS)))
    (script,) = [each for each in documents if each["kind"] == "ConfigMap"]
    session.kubectl("apply", "--filename=-", content=yaml.safe_dump(script))
    session.delete_at_end("configmaps", script["metadata"]["name"])


def trials(session: Session, plan: Plan) -> list[TrialRecord]:
    """Return the trials, the first created first."""
    found = session.kubectl.objects(TRIAL_KIND, f"{LABEL}={plan.name}")
    return read_trials(found, plan)


def commands(session: Session, name: str) -> tuple[str, ...]:
    """Return what shows an Experiment to a user."""
    typed = session.kubectl.typed
    return (
        typed("describe", f"experiment/{name}"),
        typed("describe", f"suggestion/{name}"),
        typed("get", "trials.kubeflow.org,jobs,pods", f"--selector={LABEL}={name}"),
    )


def finish(session: Session, plan: Plan) -> list[TrialRecord]:
    """Wait until the Experiment has succeeded and return its trials.

    Raises:
        CheckError: it failed, went away, or has another number of trials than it should, or one trial twice.
    """
    look, pods = commands(session, plan.name), (f"{LABEL}={plan.name}",)

    def outcome() -> tuple[str, str] | None:
        found = session.kubectl.get(EXPERIMENT_KIND, plan.name)
        check(found, f"experiment {plan.name} must be there until it ends, but went away", *look, pods=pods)
        return ended(found or {})

    ending, reason = session.wait(f"experiment {plan.name} to end", outcome, *look, pods=pods)
    found = trials(session, plan)
    check(ending == "Succeeded", f"experiment {plan.name} ended as {ending}: {reason}", *look, pods=pods)
    wanted = plan.spec["maxTrialCount"]
    check(len(found) == wanted, f"experiment {plan.name} must have {wanted} trials, but has {len(found)}", *look)
    check_distinct(session, plan, found)
    return found


def check_distinct(session: Session, plan: Plan, found: list[TrialRecord]) -> None:
    """Raise CheckError if two trials have one configuration; Katib's own tpe may propose one twice."""
    if plan.spec["algorithm"]["algorithmName"] == "tpe":
        return
    known: dict[tuple[tuple[str, str], ...], str] = {}
    for trial in found:
        other = known.setdefault(tuple(sorted(trial.assignments.items())), trial.name)
        look = commands(session, plan.name)
        check(other == trial.name, f"trials {other} and {trial.name} must differ, but have one configuration", *look)


def pods_of(session: Session, trial: str) -> list[dict[str, Any]]:
    """Return the pods of a trial's Job, the oldest first."""
    found = session.kubectl.objects("pods", pod_label(trial))
    return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def pod_label(trial: str) -> str:
    """Return the label of the pods of a trial's Job, which has the trial's name."""
    return f"batch.kubernetes.io/job-name={trial}"


def log(session: Session, trial: str) -> str:
    """Return the logs of a trial's pods, whose order a second's resolution may hide; empty when they have gone."""
    return "".join(session.kubectl.logs(pod["metadata"]["name"], CONTAINER) for pod in pods_of(session, trial))


def check_promotions(session: Session, found: list[TrialRecord]) -> int:
    """Return how many trials were promoted; raise CheckError unless each of them went on from a checkpoint."""
    named = {trial.name: identity(trial.name) for trial in found}
    promoted = [name for name, identified in named.items() if identified and identified.rung > 0]
    check(promoted, "a search with rungs must promote trials, but all are in the lowest rung")
    for name in promoted:
        text = log(session, name)
        if text:
            look = session.kubectl.typed("logs", f"job/{name}", f"--container={CONTAINER}")
            problem = f"the promoted trial {name} must have resumed, but its log has no line {RESUMED!r}"
            check(RESUMED in text, problem, look, pods=[pod_label(name)])
    kept = session.store(store_uri(session)).list("checkpoints")
    check(kept, f"trials must keep checkpoints below {store_uri(session)}/checkpoints, but there are none")
    return len(promoted)


def failure_reason(session: Session, trial: str) -> str:
    """Return why a trial failed: from the store, or what its pod wrote to /dev/termination-log."""
    store, key = session.store(store_uri(session)), f"failures/{trial}.txt"
    if store.exists(key):
        return store.read(key).decode().strip()
    for pod in pods_of(session, trial):
        for status in pod.get("status", {}).get("containerStatuses", ()):
            if text := termination_message(status.get("state", {})):
                return text
    look = session.kubectl.typed("logs", f"job/{trial}", f"--container={CONTAINER}")
    raise CheckError(
        f"the reason of the failed trial {trial} must be at {store.address(key)} or in its pod's termination message, "
        "but is at neither place",
        look,
        pods=[pod_label(trial)],
    )


def of_run(session: Session, run_id: str) -> dict[str, Any] | None:
    """Return the Experiment that a search run has made."""
    for found in session.kubectl.objects(EXPERIMENT_KIND):
        if found["metadata"].get("annotations", {}).get(RUN) == run_id:
            return found
    return None


def remove_of_run(session: Session, run_id: str) -> None:
    """Have the Experiment that a search run makes deleted at the end."""

    def remove() -> None:
        if found := of_run(session, run_id):
            session.kubectl.delete(EXPERIMENT_KIND, found["metadata"]["name"])

    session.undo(f"experiment of run {run_id}", remove)
