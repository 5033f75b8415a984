"""Scenarios of a search run that is disturbed: evicted steps, a deleted pod, a terminated run."""

from typing import Any

from kondense.katib_search.cluster import LABEL

from tests.e2e.cluster import packages, runs, searches
from tests.e2e.cluster.failure import check
from tests.e2e.cluster.kubectl import EXPERIMENT_KIND, TRIAL_KIND
from tests.e2e.cluster.running import search_parameters
from tests.e2e.cluster.session import Session

DELETED_S = 300.0


def step_evicted(session: Session) -> None:
    """The search step is evicted: its Experiment stays and the next attempt follows it; a deleted training resumes."""
    parameters = search_parameters(session, "step-evicted")
    run_id = runs.start(session, packages.package(session, "long/search.yaml"), parameters)
    found = wait_for_trial(session, run_id)
    name, uid = found["metadata"]["name"], found["metadata"]["uid"]
    look, pods = (*runs.commands(session, run_id), *searches.commands(session, name)), (runs.selector(run_id),)
    (step,) = runs.step_pods(session, run_id, "katib_search")[-1:]
    session.kubectl.evict(step["metadata"]["name"])

    def attempted_again() -> bool:
        now = searches.of_run(session, run_id)
        kept = now is not None and now["metadata"]["uid"] == uid and "deletionTimestamp" not in now["metadata"]
        problem = f"experiment {name} must be kept when its step is evicted, but was deleted"
        check(kept, problem, *look, pods=pods)
        others = [
            each
            for each in runs.step_pods(session, run_id, "katib_search")
            if each["metadata"]["uid"] != step["metadata"]["uid"]
        ]
        return bool(others)

    session.wait("the search step's next attempt", attempted_again, *look, pods=pods)
    cut_off_training(session, run_id)
    runs.finish(session, run_id)
    attempted_again()
    session.note(f"experiment {name} went on")


def wait_for_trial(session: Session, run_id: str) -> dict[str, Any]:
    """Wait until the run's Experiment has a trial and return the Experiment."""
    look, pods = runs.commands(session, run_id), (runs.selector(run_id),)

    def begun() -> dict[str, Any] | None:
        found = searches.of_run(session, run_id)
        name = found["metadata"]["name"] if found else ""
        return found if found and session.kubectl.objects(TRIAL_KIND, f"{LABEL}={name}") else None

    searches.remove_of_run(session, run_id)
    return session.wait(f"a trial of run {run_id}", begun, *look, pods=pods)


def cut_off_training(session: Session, run_id: str) -> None:
    """Delete the pod of the teacher's training after its first epochs; raise CheckError unless the next one resumes."""
    look, pods = runs.commands(session, run_id), (runs.selector(run_id),)

    def trained() -> str:
        found = runs.step_pods(session, run_id, "train")
        return found[-1]["metadata"]["name"] if "epoch" in runs.step_log(session, found) else ""

    name = session.wait("the teacher's training", trained, *look, pods=pods)
    session.kubectl.delete("pod", name)

    def resumed() -> bool:
        others = [each for each in runs.step_pods(session, run_id, "train") if each["metadata"]["name"] != name]
        return searches.RESUMED in runs.step_log(session, others)

    session.wait(f"the training to go on after its pod {name} was deleted", resumed, *look, pods=pods)


def terminated(session: Session) -> None:
    """A search run that is terminated through the API deletes its Experiment."""
    parameters = search_parameters(session, "terminated")
    run_id = runs.start(session, packages.package(session, "long/search.yaml"), parameters)
    name = wait_for_trial(session, run_id)["metadata"]["name"]
    session.kfp().client.terminate_run(run_id)
    look = searches.commands(session, name)

    def gone() -> bool:
        return session.kubectl.get(EXPERIMENT_KIND, name) is None

    what = f"experiment {name} of the terminated run to be deleted"
    session.wait(
        what, gone, *look, timeout_s=min(DELETED_S, session.options.run_timeout_s), pods=(runs.selector(run_id),)
    )
    state = runs.finish(session, run_id, wanted=("CANCELED", "FAILED"))
    session.note(f"run {state.lower()}, experiment deleted")
