"""Scenarios of searches: the repository's Experiments, failing trials, faults in mid-search."""

import json
from typing import Any

from kondense.katib_search.cluster import LABEL
from kondense.katib_search.experiment import Plan
from kondense.search.history import Status

from tests.e2e.cluster import searches
from tests.e2e.cluster.failure import check
from tests.e2e.cluster.session import Session

BAD = "1000000000"  # no learning rate: it must lie in (0, 100]
LONG = 1000  # epochs of a trial that is to be evicted: it runs for a minute or two
# Of the first three trials one diverges: the mean of all is above 300, the median 0.3.
IN_ORDER, WORSE = ["900", "0.2", "0.3", "0.1", "0.9", "0.8"], ["0.8", "0.9"]
SPACE = {"lr": ["0.05", "0.1"], "momentum": ["0.8", "0.9"], "weight_decay": ["0.0005"], "batch_size": ["64"]}


def experiments(session: Session) -> None:
    """Every file of manifests/experiments succeeds with few trials on the small data set; promoted trials resume."""
    for file in searches.files():
        plan = searches.small(session, file, file.stem)
        searches.start(session, plan)
        found = searches.finish(session, plan)
        failed = [trial.name for trial in found if trial.status is not Status.SUCCEEDED]
        look = searches.commands(session, plan.name)
        check(not failed, f"all trials of {plan.name} must succeed, but {', '.join(failed)} did not", *look)
        if plan.search.resource_name:
            session.note(f"{file.stem}: {searches.check_promotions(session, found)} resumed")
    session.note(f"{len(searches.files())} Experiments")


def failing_trials(session: Session) -> None:
    """An Experiment with trials that fail ends by its rules, and why they failed can be found."""
    plan = failing_plan(session)
    searches.start(session, plan)
    found = searches.finish(session, plan)
    failed = [trial for trial in found if trial.status is Status.FAILED]
    bad = {trial.name for trial in found if trial.assignments["lr"] == BAD}
    look = searches.commands(session, plan.name)
    check({trial.name for trial in failed} == bad, f"{sorted(bad)} must fail and no other, but {failed} did", *look)
    for trial in failed:
        reason = searches.failure_reason(session, trial.name)
        named = "learning_rate" in reason
        check(named, f"the reason of {trial.name} must name learning_rate, but is {reason!r}", *look)
        session.note(reason[:100])


def failing_plan(session: Session) -> Plan:
    """Return an Experiment of four trials on a grid, two of which have no learning rate."""
    names = {**SPACE, "schedule": ["cosine"], "augment": ["none"]}
    space = [
        {
            "name": name,
            "parameterType": "categorical" if name in ("schedule", "augment") else "discrete",
            "feasibleSpace": {"list": values},
        }
        for name, values in names.items()
    ]
    changes = {"algorithm": "grid", "space": json.dumps(space), "max_failed_trials": 3}
    plan = searches.small(session, searches.EXPERIMENTS / "random.yaml", "failing-trials", **changes)
    # Afterwards: what makes Experiments here refuses such a value before Katib sees it.
    next(each for each in plan.spec["parameters"] if each["name"] == "lr")["feasibleSpace"]["list"][1] = BAD
    return plan


def early_stopping(session: Session) -> None:
    """Trials worse than the median are stopped although one has diverged, and keep what they have reported."""
    plan = stopping_plan(session)
    searches.start(session, plan)
    found = searches.finish(session, plan)
    look = searches.commands(session, plan.name)
    stopped = sorted(trial.assignments["lr"] for trial in found if trial.status is Status.EARLY_STOPPED)
    check(stopped == WORSE, f"the trials of {', '.join(WORSE)} must be stopped early, but {stopped} were", *look)
    for trial in found:
        wanted = float(trial.assignments["lr"])
        check(trial.value == wanted, f"trial {trial.name} must have the value {wanted}, but has {trial.value}", *look)
    session.note(f"{len(stopped)} of {len(found)} trials stopped")


def stopping_plan(session: Session) -> Plan:
    """Return an Experiment of six trials, one after another, that print their lr every five seconds."""
    plan = searches.small(session, searches.EXPERIMENTS / "decision-tree.yaml", "early-stopping")
    plan.body["metadata"]["labels"]["kondense/early-stopping"] = "medianstop"
    rule = {"min_trials_required": "3", "start_step": "2"}
    spec: Any = plan.spec
    spec.update(
        objective={"type": "minimize", "objectiveMetricName": "loss"},
        algorithm={"algorithmName": "grid"},
        earlyStopping={
            "algorithmName": "medianstop",
            "algorithmSettings": [{"name": name, "value": value} for name, value in rule.items()],
        },
        parallelTrialCount=1,
        maxTrialCount=len(IN_ORDER),
        metricsCollectorSpec={"collector": {"kind": "StdOut"}},
        parameters=[{"name": "lr", "parameterType": "categorical", "feasibleSpace": {"list": IN_ORDER}}],
    )
    template = spec["trialTemplate"]
    template["trialParameters"] = [{"name": "lr", "reference": "lr"}]
    pod = template["trialSpec"]["spec"]["template"]["spec"]
    del pod["volumes"], pod["containers"][0]["volumeMounts"], pod["containers"][0]["workingDir"]
    # Katib's collector ends the only child of the shell that it puts around this command.
    script = 'import time; [print("loss=${trialParameters.lr}") or time.sleep(5) for _ in range(4)]'
    pod["containers"][0]["command"] = ["sh", "-c", f"python3 -u -c '{script}'"]
    return plan


def suggestion_killed(session: Session) -> None:
    """The suggestion's pod is deleted in mid-search; the search ends with the right number of distinct trials."""
    plan = searches.small(session, searches.EXPERIMENTS / "bohb.yaml", "suggestion-killed")
    searches.start(session, plan)
    look, label = searches.commands(session, plan.name), f"katib.kubeflow.org/suggestion={plan.name}"

    def one_finished() -> bool:
        return any(trial.finished for trial in searches.trials(session, plan))

    session.wait(f"a trial of {plan.name} to finish", one_finished, *look, pods=[f"{LABEL}={plan.name}"])
    pods = [each["metadata"]["name"] for each in session.kubectl.objects("pods", label)]
    check(pods, f"the suggestion of {plan.name} must have a pod, but has none", *look)
    session.kubectl.delete("pods", *pods)
    found = searches.finish(session, plan)
    session.note(f"{len(found)} distinct trials after {len(pods)} pod(s) were deleted")


def trial_evicted(session: Session) -> None:
    """A running trial's pod is evicted; the trial does not fail, its next pod resumes from the checkpoint."""
    file = searches.EXPERIMENTS / "random.yaml"
    plan = searches.small(session, file, "trial-evicted", max_epochs=LONG, max_trials=1, parallel_trials=1)
    store = session.store(searches.store_uri(session))
    before = set(store.list("checkpoints"))
    searches.start(session, plan)
    look = searches.commands(session, plan.name)

    def checkpoint() -> bool:
        return bool(set(session.store(searches.store_uri(session)).list("checkpoints")) - before)

    session.wait("the trial's first checkpoint", checkpoint, *look, pods=[f"{LABEL}={plan.name}"])
    (trial,) = searches.trials(session, plan)
    pods = searches.pods_of(session, trial.name)
    session.kubectl.evict(pods[-1]["metadata"]["name"])

    def ended() -> Any:
        (now,) = searches.trials(session, plan)
        return now if now.finished else None

    label, look = searches.pod_label(trial.name), (*look, session.kubectl.typed("describe", f"job/{trial.name}"))
    after = session.wait(f"trial {trial.name} to end", ended, *look, pods=[label])
    problem = f"trial {trial.name} must survive the eviction of its pod, but is {after.status.value}: {after.reason}"
    check(after.status is Status.SUCCEEDED, problem, *look, pods=[label])
    text = searches.log(session, trial.name)
    check(searches.RESUMED in text, f"trial {trial.name} must resume, but its log does not say so", *look, pods=[label])
    searches.finish(session, plan)
    session.note(next(line for line in text.splitlines() if searches.RESUMED in line))
