"""Scenarios of runs: the three pipelines, a recurring run, the Argo Workflow, an absent Secret."""

from typing import Any

import yaml
from kondense.publish.versions import read_champion, version_ids
from kondense_pipelines.cluster.client import read_parameters, schedule
from kondense_pipelines.cluster.recurring import Schedule
from kondense_pipelines.graphs.argo import PREFIX

from tests.e2e.cluster import packages, registered, runs, searches
from tests.e2e.cluster.failure import check
from tests.e2e.cluster.kubectl import WORKFLOW_KIND
from tests.e2e.cluster.session import BUCKET, Session

EVERY_MINUTE = "0 * * * * *"
FIRES_S = 300.0
REMEDY = "they come from the Secret"  # docs/troubleshooting.md
ACCOUNT = "pipeline-runner"
# A search of one cycle of the brackets with rungs of 1 and 3 epochs.
SEARCH = {"search_max_epochs": "3", "search_max_trials": "6", "search_parallel_trials": "2"}


def secrets_absent(session: Session) -> None:
    """A compress run whose Secret is absent fails, and its first failing step names the remedy."""
    run_id = runs.start(
        session, packages.package(session, "absent/compress.yaml"), packages.parameters(session, "absent")
    )
    runs.finish(session, run_id, wanted=("FAILED", "CANCELED"))
    failed = [
        pod
        for stage in ("data_prep", "train")
        for pod in runs.step_pods(session, run_id, stage)
        if pod["status"].get("phase") == "Failed"
    ]
    look, pods = runs.commands(session, run_id), (runs.selector(run_id),)
    check(failed, f"a step of run {run_id} must have failed for want of the Secret, but none did", *look, pods=pods)
    text = runs.step_log(session, failed[:1])
    name = failed[0]["metadata"]["name"]
    check(REMEDY in text, f"the log of step {name} must say {REMEDY!r}, but does not", *look, pods=pods)
    session.note(next(line for line in text.splitlines() if REMEDY in line)[-120:])


def compress(session: Session) -> None:
    """A compress run succeeds; its report can be read, the chosen model is whole, a champion is published."""
    parameters = packages.parameters(session, "compress")
    run_id = runs.start(session, packages.package(session, "compress.yaml"), parameters)
    check_results(session, "compress", run_id)
    check(published(session, "compress"), f"the run must publish below {packages.PUBLISHED}, but there is nothing")


def search(session: Session) -> None:
    """A search run succeeds: its Experiment's trials, then everything that compress does."""
    run_id = runs.start(session, packages.package(session, "search.yaml"), search_parameters(session, "search"))
    searches.remove_of_run(session, run_id)
    check_results(session, "search", run_id)
    found = searches.of_run(session, run_id)
    check(found, f"run {run_id} must have made an Experiment, but there is none", *runs.commands(session, run_id))


def search_parameters(session: Session, name: str, **more: str) -> list[str]:
    """Return the parameters of a search run; what its trials keep goes at the end."""
    session.undo("what the trials of runs keep", lambda: session.clear(packages.TRIALS))
    return packages.parameters(session, name, **SEARCH, **more)


def refresh(session: Session) -> None:
    """A refresh run publishes a champion; a second one with the same data publishes nothing new."""
    package, parameters = packages.package(session, "refresh.yaml"), packages.parameters(session, "refresh")
    first = runs.start(session, package, parameters)
    check_results(session, "refresh", first)
    before = published(session, "refresh")
    look = runs.commands(session, first)
    check(before, f"the first run must publish below {packages.PUBLISHED}, but there is nothing", *look)
    second = runs.start(session, package, parameters)
    runs.finish(session, second)
    after = published(session, "refresh")
    look = runs.commands(session, second)
    check(after == before, f"the second run must publish nothing, but {before} became {after}", *look)
    pods = runs.step_pods(session, second, "train")
    check(not pods, f"the second run must stop after the step champion, but trained in {len(pods)} pods", *look)


def check_results(session: Session, pipeline: str, run_id: str) -> None:
    """Raise CheckError unless the run succeeds, with its report and the chosen model in the store."""
    runs.finish(session, run_id)
    uri = runs.artifacts_uri(session, pipeline, run_id)
    runs.check_report(session, uri)
    runs.check_chosen(session, uri)


def published(session: Session, run: str) -> Any:
    """Return the versions and the champion that a run of this session has published; None without a version."""
    name, store = packages.published_name(session, run), session.store(packages.PUBLISHED)
    found = version_ids(store, name)
    return (found, read_champion(store, name)) if found else None


def recurring(session: Session) -> None:
    """A recurring run with a cron of every minute fires; then it is paused and deleted."""
    package = packages.package(session, "refresh.yaml")
    parameters = read_parameters(package, packages.parameters(session, "recurring"))
    name = f"e2e-{session.stamp}"
    wanted = Schedule(name, "refresh", EVERY_MINUTE, True, parameters=parameters)
    session.undo(f"recurring run {name}", lambda: stop_recurring(session, name))
    before = registered.versions(session)["refresh"]
    for line in schedule(session.access(), package, wanted, f"e2e{session.stamp}"):
        session.say(line)
    session.undo("the version that it runs", lambda: registered.remove_versions(session, "refresh", keep=before))
    (found,) = [each for each in registered.recurring_runs(session) if each.display_name == name]
    look = session.kubectl.typed("describe", "scheduledworkflows")

    def fired() -> list[Any]:
        return runs_of(session, found.recurring_run_id)

    first = session.wait(
        f"recurring run {name} to fire", fired, look, timeout_s=min(FIRES_S, session.options.run_timeout_s)
    )
    client = session.kfp().client
    client.disable_recurring_run(found.recurring_run_id)
    state = client.get_recurring_run(found.recurring_run_id).status
    check(state == "DISABLED", f"the recurring run must be paused, but is {state}", look)
    stop_recurring(session, name)
    session.note(f"{len(first)} run(s) fired")


def runs_of(session: Session, recurring_run_id: str) -> list[Any]:
    """Return the runs that a recurring run has made."""
    found = registered.all_pages(session.kfp().client.list_runs, "runs")
    return [each for each in found if each.recurring_run_id == recurring_run_id]


def stop_recurring(session: Session, name: str) -> None:
    """Delete the recurring run, if it is there, and its runs."""
    client = session.kfp().client
    for each in registered.recurring_runs(session):
        if each.display_name == name:
            client.delete_recurring_run(each.recurring_run_id)
            for run in runs_of(session, each.recurring_run_id):
                runs.remove(session, run.run_id)
                session.clear(runs.artifacts_uri(session, "refresh", run.run_id))


def argo(session: Session) -> None:
    """The Argo Workflow of compress is created and succeeds, with its report and the chosen model in the store."""
    body = yaml.safe_load(packages.package(session, "compress.argo.yaml").read_text())
    given = dict(each.split("=", 1) for each in packages.parameters(session, "argo"))
    for parameter in body["spec"]["arguments"]["parameters"]:
        parameter["value"] = given.get(parameter["name"], parameter["value"])
    body["spec"]["serviceAccountName"] = ACCOUNT
    body["metadata"]["generateName"] = f"e2e-{session.stamp}-"
    made = session.kubectl.create(body)
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    uri = f"minio://{BUCKET}/{PREFIX}/{uid}"
    session.undo(f"artifacts of workflow {name}", lambda: session.clear(uri))
    session.delete_at_end(WORKFLOW_KIND, name)
    look = (session.kubectl.typed("describe", f"workflow/{name}"),)
    pods = (f"workflows.argoproj.io/workflow={name}",)

    def phase() -> str:
        found = session.kubectl.get(WORKFLOW_KIND, name) or {}
        return str(found.get("status", {}).get("phase", "")).replace("Pending", "").replace("Running", "")

    ended = session.wait(f"workflow {name} to end", phase, *look, pods=pods)
    check(ended == "Succeeded", f"workflow {name} must succeed, but ended as {ended}", *look, pods=pods)
    runs.check_report(session, uri, artifact_name="report", file="report.html")
    runs.check_chosen(session, uri)
    check(published(session, "argo"), f"the workflow must publish below {packages.PUBLISHED}, but there is nothing")
