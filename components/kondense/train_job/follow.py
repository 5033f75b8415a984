"""Follow a TrainJob to its end: its conditions, Kubernetes' warnings, and what its first node logs.

Conditions are Suspended, Complete and Failed. Every replicated job of the runtime has counters in ``jobsStatus``, in
which it is ready when all its pods are. Source: trainjob_types.go of Kubeflow Trainer 2.3.
"""

import time
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from kondense.artifacts.schema import check_fields
from kondense.cluster.errors import ClusterError
from kondense.cluster.objects import CustomObjects, api_error, well_formed
from kondense.cluster.pod import log
from kondense.printable import printable
from kondense.store.store import Store, StoreError
from kondense.train_job.config import TrainJobConfig
from kondense.train_job.job import CONTAINER, TrainJobError
from kondense.trial.reason import kept_reason

WARNINGS_S = 60.0  # between two requests for the events
# Labels of the first node's pod: JobSet's, and that of an indexed Job.
FIRST = f"jobset.sigs.k8s.io/replicatedjob-name={CONTAINER},batch.kubernetes.io/job-completion-index=0"


class Condition(TypedDict):
    """A condition of a TrainJob."""

    type: str
    status: str
    message: NotRequired[str]
    reason: NotRequired[str]


class Counters(TypedDict):
    """The counters of one replicated job."""

    name: str
    active: NotRequired[int]
    ready: NotRequired[int]
    succeeded: NotRequired[int]
    failed: NotRequired[int]
    suspended: NotRequired[int]


class Status(TypedDict):
    """The status of a TrainJob."""

    conditions: NotRequired[list[Condition] | None]
    jobsStatus: NotRequired[list[Counters] | None]


class TrainJob(TypedDict):
    """What is used of a TrainJob."""

    metadata: dict[str, Any]
    status: NotRequired[Status | None]


class Follower:
    """Polls a TrainJob until it ends, and logs the changes."""

    def __init__(self, jobs: CustomObjects, name: str, config: TrainJobConfig, store: Store) -> None:
        self.jobs = jobs
        self.name = name
        self.config = config
        self.store = store
        self.logged: set[str] = set()
        self.printed: dict[tuple[str, int], int] = {}
        self.state = self.failure = ""
        self.ready = False
        self.started_s = time.monotonic()
        self.warned_s = self.started_s

    def follow(self) -> None:
        """Return when the TrainJob is complete.

        Raises:
            TrainJobError: it failed, was deleted, or not all nodes started within ``patience_minutes``.
            ArtifactError: its status has another form.
        """
        while True:
            job = self.jobs.get(self.name)
            if job is None or job["metadata"].get("deletionTimestamp"):
                raise TrainJobError(
                    f"TrainJob {self.name} was deleted during the training; run the step again: it goes on from the"
                    " latest checkpoint."
                )
            check_fields(f"TrainJob {self.name}", job, TrainJob)
            self.log_output()
            self.log_state(job)
            if failed := condition(job, "Failed"):
                raise TrainJobError(self.explained(failed))
            if condition(job, "Complete"):
                return
            self.log_failure()
            self.log_warnings()
            self.check_patience(job)
            time.sleep(self.config.poll_seconds)

    def log_state(self, job: Mapping[str, Any]) -> None:
        """Log the state of the TrainJob if it has changed."""
        if suspended := condition(job, "Suspended"):
            state = f"suspended: {suspended}"
        else:
            counts = counters(job)
            texts = [f"{counts[key]} {key}" for key in ("active", "ready", "succeeded", "failed") if counts.get(key)]
            state = f"jobs of {self.config.nodes} nodes: {', '.join(texts)}" if texts else ""
        if state and state != self.state:
            log(f"TrainJob {self.name}: {state}")
            self.state = state

    def log_output(self) -> None:
        """Log what the first node has written since the last time; a restarted container begins anew."""
        import urllib3
        from kubernetes import client

        api = client.CoreV1Api(self.jobs.api)
        try:
            self.log_pods(api)
        except api_error() as error:  # optional: the account may lack the permission, or the pod has just gone
            if error.status == 403:
                self.log_once(
                    "the nodes' output cannot be read: "
                    + self.jobs.kind.explain(error, self.jobs.namespace, "get pods/log")
                )
        except (urllib3.exceptions.HTTPError, ClusterError) as error:
            self.log_once(f"the nodes' output cannot be read: {error}")

    def log_pods(self, api: Any) -> None:
        """Log what the pods of the first node have written."""
        with well_formed("list pods"):
            pods = api.list_namespaced_pod(
                self.jobs.namespace, label_selector=f"jobset.sigs.k8s.io/jobset-name={self.name},{FIRST}"
            ).items
            for pod in pods:
                statuses = [each for each in pod.status.container_statuses or [] if each.name == CONTAINER]
                if not statuses or not (statuses[0].state.running or statuses[0].state.terminated):
                    continue
                text = api.read_namespaced_pod_log(pod.metadata.name, self.jobs.namespace, container=CONTAINER)
                key = (pod.metadata.uid, statuses[0].restart_count)
                whole = text[: text.rfind("\n") + 1]
                for line in whole[self.printed.get(key, 0) :].splitlines():
                    log(f"node 0: {printable(line)}")
                self.printed[key] = max(len(whole), self.printed.get(key, 0))

    def log_failure(self) -> None:
        """Log why a node failed, if it told and the runtime has not given up yet."""
        reason = self.reason()
        if reason and reason != self.failure:
            self.failure = reason
            log(f"a node failed: {reason}")

    def log_warnings(self) -> None:
        """Log each of Kubernetes' warnings once: no free GPU, an image that cannot be pulled, a quota."""
        if time.monotonic() - self.warned_s < min(WARNINGS_S, 6 * self.config.poll_seconds):
            return
        self.warned_s = time.monotonic()
        for line in self.jobs.warnings(self.name):
            self.log_once(line)

    def log_once(self, line: str) -> None:
        """Log a line unless it has been."""
        if line not in self.logged:
            self.logged.add(line)
            log(line)

    def check_patience(self, job: Mapping[str, Any]) -> None:
        """Delete the TrainJob and raise TrainJobError if its nodes have not started after ``patience_minutes``."""
        counts = counters(job)
        self.ready = self.ready or bool(counts.get("ready") or counts.get("succeeded"))
        if condition(job, "Suspended"):  # it waits in a queue
            self.started_s = time.monotonic()
        waited_s = time.monotonic() - self.started_s
        if self.ready or not self.config.patience_minutes or waited_s < 60 * self.config.patience_minutes:
            return
        reasons = [self.reason(), *self.jobs.warnings(self.name)]
        reason = next(filter(None, reasons), f"see kubectl -n {self.jobs.namespace} get jobsets,pods")
        self.jobs.delete(self.name, self.config.run_id)
        raise TrainJobError(
            f"not all {self.config.nodes} nodes started within {self.config.patience_minutes:g} minutes, so TrainJob"
            f" {self.name} was deleted: {reason}"
        )

    def explained(self, failed: str) -> str:
        """Return why the TrainJob failed, with what a node told, or Kubernetes' first warning."""
        reasons = [self.reason(), *self.jobs.warnings(self.name)]
        reason = next(filter(None, reasons), "no node told why")
        logs = f"kubectl -n {self.jobs.namespace} logs -l jobset.sigs.k8s.io/jobset-name={self.name}"
        return f"TrainJob {self.name} failed ({failed}): {reason}. Its logs: {logs}"

    def reason(self) -> str:
        """Return the reason of a failure that a node wrote to the store; empty if there is none."""
        try:
            return kept_reason(self.store, self.name).rstrip(".")
        except StoreError:
            return ""


def condition(job: Mapping[str, Any], kind: str) -> str:
    """Return the message of a condition that holds; empty if it does not."""
    for each in (job.get("status") or {}).get("conditions") or []:
        if each.get("type") == kind and each.get("status") == "True":
            return printable(str(each.get("message") or each.get("reason") or kind))
    return ""


def counters(job: Mapping[str, Any]) -> dict[str, int]:
    """Return the counters of the runtime's job of nodes: active, ready, succeeded, failed and suspended."""
    for each in (job.get("status") or {}).get("jobsStatus") or []:
        if each.get("name") == CONTAINER:
            return {key: value for key, value in each.items() if key != "name"}
    return {}
