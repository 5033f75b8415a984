"""Runs of Kubeflow Pipelines: started, followed, their steps' pods and artifacts found."""

import re
import tempfile
from pathlib import Path
from typing import Any

from kondense.artifacts.model import read_description
from kondense.files import verify_files
from kondense_pipelines.cluster.client import submit

from tests.e2e.cluster.failure import CheckError, check
from tests.e2e.cluster.packages import TITLE
from tests.e2e.cluster.session import Session

STARTED = re.compile(r"\(([^()]+)\) is started")
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
CONTAINER = "main"  # of a step's pod


def start(session: Session, package: Path, texts: list[str]) -> str:
    """Start a run with the project's own code and return its id; it is deleted at the end."""
    name = f"e2e-{session.stamp}-{package.stem}"
    (line,) = submit(session.access(), package, texts, name=name)
    match = STARTED.search(line)
    if not match:
        raise CheckError(f"submit must say the run's id, but said {line!r}")
    run_id = match[1]
    session.say(line)
    session.undo(f"run {run_id}", lambda: remove(session, run_id))
    session.undo(f"artifacts of run {run_id}", lambda: session.clear(artifacts_uri(session, package.stem, run_id)))
    return run_id


def state(session: Session, run_id: str) -> str:
    """Return the run's state, such as RUNNING."""
    return str(session.kfp().client.get_run(run_id).state)


def finish(session: Session, run_id: str, *, wanted: tuple[str, ...] = ("SUCCEEDED",)) -> str:
    """Wait until the run has ended and return its state.

    Raises:
        CheckError: it ended otherwise; the text holds what Kubeflow Pipelines says of it.
    """

    def ended() -> str:
        found = state(session, run_id)
        return found if found in ENDED else ""

    pods = (selector(run_id),)
    found = session.wait(f"run {run_id} to end", ended, *commands(session, run_id), pods=pods)
    if found not in wanted:
        raise CheckError(
            f"run {run_id} ended as {found}, not {' or '.join(wanted)}: {told(session, run_id)}",
            *commands(session, run_id),
            pods=pods,
        )
    return found


def told(session: Session, run_id: str) -> str:
    """Return what Kubeflow Pipelines says of a run's failure."""
    error = getattr(session.kfp().client.get_run(run_id), "error", None)
    return " ".join(str(getattr(error, "message", None) or "it gives no reason").split())


def remove(session: Session, run_id: str) -> None:
    """Terminate a run if it still runs, and delete it."""
    client = session.kfp().client
    if state(session, run_id) not in ENDED:
        client.terminate_run(run_id)
        session.wait(f"run {run_id} to be terminated", lambda: state(session, run_id) in ENDED)
    client.runs.run_service_delete_run(run_id)


def selector(run_id: str) -> str:
    """Return the labels of a run's pods; Kubeflow Pipelines' API server sets them on the Workflow's pods."""
    return f"pipeline/runid={run_id}"


def commands(session: Session, run_id: str) -> tuple[str, ...]:
    """Return what shows a run to a user."""
    return (session.kubectl.typed("get", "workflows,pods", f"--selector={selector(run_id)}"),)


def step_pods(session: Session, run_id: str, stage: str) -> list[dict[str, Any]]:
    """Return the pods of a run that execute a stage, the oldest first; drivers and others are none of them."""
    pods = [each for each in session.kubectl.objects("pods", selector(run_id)) if _function(each) == stage]
    return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _function(pod: dict[str, Any]) -> str:
    """Return the name of the component's function that a pod executes: it is in the command of kfp's executor."""
    for container in pod["spec"]["containers"]:
        words = [*container.get("command", ()), *container.get("args", ())]
        if "--function_to_execute" in words[:-1]:
            return str(words[words.index("--function_to_execute") + 1])
    return ""


def step_log(session: Session, pods: list[dict[str, Any]]) -> str:
    """Return the logs of a step's pods."""
    return "\n".join(session.kubectl.logs(each["metadata"]["name"], CONTAINER) for each in pods)


def artifacts_uri(session: Session, pipeline: str, run_id: str) -> str:
    """Return where Kubeflow Pipelines keeps the artifacts of a run."""
    return f"{session.options.artifact_root}/{pipeline}/{run_id}"


def artifact(session: Session, uri: str, step: str, name: str) -> dict[str, bytes]:
    """Return an artifact's files by name; that of one file has the name ''.

    Kubeflow Pipelines puts an identifier of the execution between step and artifact, an Argo Workflow of ours nothing.
    """
    store = session.store(uri)
    wanted = re.compile(rf"(?:.*/)?{re.escape(step)}/(?:[^/]+/)?{re.escape(name)}(?:/(.+))?")
    keys = {match[1] or "": key for key in store.list() if (match := wanted.fullmatch(key))}
    return {file: store.read(key) for file, key in keys.items()}


def check_report(session: Session, uri: str, *, artifact_name: str = "html", file: str = "") -> None:
    """Raise CheckError unless the report's page is in the store, with its title."""
    page = artifact(session, uri, "report", artifact_name).get(file, b"").decode(errors="replace")
    where = f"mc ls --recursive STORE/{uri.partition('://')[2]}"
    check(page, f"the artifact {artifact_name} of the step report must be below {uri}, but is not there", where)
    check(f"<title>{TITLE}" in page, f"the report below {uri} must have the title {TITLE!r}, but begins {page[:80]!r}")
    session.note(f"report of {len(page)} characters")


def check_chosen(session: Session, uri: str) -> None:
    """Raise CheckError unless the chosen model's files are in the store, whole."""
    files = artifact(session, uri, "report", "chosen")
    where = f"mc ls --recursive STORE/{uri.partition('://')[2]}"
    check("model.json" in files, f"the chosen model must be below {uri}, but its files are {sorted(files)}", where)
    with tempfile.TemporaryDirectory(dir=session.scratch) as scratch:
        for name, content in files.items():
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            verify_files(Path(scratch), read_description(Path(scratch))["files"])
        except (OSError, ValueError) as error:
            raise CheckError(f"the chosen model below {uri} is not whole: {error}", where) from None
    session.note(f"{len(files)} files of the chosen model")
