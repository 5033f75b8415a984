"""Kubeflow Pipelines: its API with runs, which are played step by step.

Honest in: pipelines, versions and recurring runs (tests.support.fake_kfp), states, labels of the pods, attempts
after a pod that failed or went away, the Secret's absence (the text is that of the project's own code), the search
step's Experiment (built by kondense.katib_search), a terminated run ending as FAILED. Played: the steps themselves;
of a pipeline only those that the scenarios look at have pods.
"""

import json
import re
import uuid
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.experiment import build_plan
from kondense.katib_search.trials import ended
from kondense.profiles import AS_PROFILE, PROFILES
from kondense.publish.config import derived_model_name
from kondense.store.connection import connection_from_environment
from kondense.store.open import open_store
from kondense.store.store import StoreError

from tests.e2e.cluster_api import results
from tests.e2e.cluster_api.objects import Object
from tests.e2e.cluster_api.pods import End, end_pod, play_pod, start_pod
from tests.e2e.cluster_api.world import Player, World
from tests.support.fake_kfp import API, KINDS, FakePipelines

KINDS.setdefault("runs", "runs")
STEPS = {
    "compress": ("data_prep", "train", "report", "publish"),
    "search": ("data_prep", "katib_search", "train", "report", "publish"),
    "refresh": ("data_prep", "champion", "train", "report", "publish"),
}
ROOT = "minio://mlpipeline/v2/artifacts"
ATTEMPTS = 3
IDS = {"runs": "run_id", "recurringruns": "recurring_run_id"}
IDS |= {"versions": "pipeline_version_id", "pipelines": "pipeline_id"}
LONG = 100  # epochs: such a training runs until its first pod is taken away


class FakeRuns(FakePipelines):
    """The API: what fake_kfp knows, and runs."""

    def __init__(self, world: World, model_dir: Path) -> None:
        """Play in a world; runs choose the model in ``model_dir``."""
        super().__init__()
        self.objects["runs"] = []
        self.world, self.model_dir = world, model_dir
        self.terminating: set[str] = set()

    def answer(self, method: str, url: str, body: bytes, headers: Message) -> tuple[int, dict[str, Any]]:
        """Answer about runs and single objects; all else is fake_kfp's."""
        parts = urlsplit(url)
        path = parts.path.removeprefix(API)
        if path == "/runs" and method == "POST":
            return 200, self.start(json.loads(body))
        if match := re.fullmatch(r"/(runs|recurringruns)/([^/:]+)(?::(terminate|disable))?", path):
            return self.one(method, *match.groups())
        if method == "DELETE" and (match := re.fullmatch(r"/pipelines/(?:[^/]+/versions/)?([^/]+)", path)):
            return self.remove("versions" if "/versions/" in path else "pipelines", match[1])
        answer = super().answer(method, url, body, headers)
        if path == "/recurringruns" and method == "POST" and answer[1]["status"] == "ENABLED":
            self.world.players.append(self.fire(answer[1]))
        return answer

    def remove(self, kind: str, identifier: str) -> tuple[int, dict[str, Any]]:
        """Delete an object."""
        self.objects[kind] = [each for each in self.objects[kind] if each[IDS[kind]] != identifier]
        return 200, {}

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create a run and let it be played."""
        made = self.create("runs", {**body, "state": "PENDING"}, "run_id")
        self.world.players.append(Run(self, made).play())
        return made

    def one(self, method: str, kind: str, identifier: str, action: str | None) -> tuple[int, dict[str, Any]]:
        """Answer about one run or recurring run."""
        found = [each for each in self.objects[kind] if each[IDS[kind]] == identifier]
        if not found:
            return 404, {"message": f"{kind} {identifier} not found"}
        if action == "terminate":
            self.terminating.add(identifier)
        if action == "disable":
            found[0]["status"] = "DISABLED"
        if method == "DELETE":
            self.world.delete("workflows", workflow_name(identifier))
            return self.remove(kind, identifier)
        return 200, {} if action else found[0]

    def fire(self, made: dict[str, Any]) -> Player:
        """Start a run of a recurring run a moment later, if it is still on."""
        for _ in range(5):
            yield
        if (
            made["status"] == "ENABLED"
            and made in self.objects["recurringruns"]
            and "never-fires" not in self.world.faults
        ):
            versions = self.objects["versions"]
            wanted = made["pipeline_version_reference"]["pipeline_version_id"]
            (version,) = [each for each in versions if each["pipeline_version_id"] == wanted]
            body = {"display_name": made["display_name"], "recurring_run_id": made["recurring_run_id"]}
            body |= {"pipeline_spec": version["pipeline_spec"], "runtime_config": made.get("runtime_config") or {}}
            self.start(body)


def workflow_name(run_id: str) -> str:
    """Return the name of a run's Workflow."""
    return f"run-{run_id[:13]}"


class Run:
    """One run of a pipeline."""

    def __init__(self, api: FakeRuns, run: dict[str, Any]) -> None:
        self.api, self.world, self.run = api, api.world, run
        given = run["pipeline_spec"]
        spec = given.get("pipeline_spec", given)
        self.platforms = given.get("platform_spec", {})
        self.spec, self.name = spec, spec["pipelineInfo"]["name"]
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        self.parameters = {key: value.get("defaultValue") for key, value in inputs.items()}
        self.parameters |= (run.get("runtime_config") or {}).get("parameters") or {}
        self.id = str(run["run_id"])
        self.disturbed = False
        text = json.dumps(spec)
        self.title = (
            match[1] if (match := re.search(r'"title": \{"runtimeValue": \{"constant": "([^"]+)"', text)) else ""
        )
        self.workflow = self.world.create("workflows", self.workflow_body())

    def workflow_body(self) -> Object:
        """Return the Workflow that owns the run's pods."""
        labels = {"pipeline/runid": self.id}
        metadata = {"name": workflow_name(self.id), "labels": labels}
        return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": {}}

    def play(self) -> Player:
        """Run the steps one after another."""
        self.run["state"] = "RUNNING"
        for stage in STEPS[self.name]:
            succeeded = yield from self.play_step(stage)
            if not succeeded:
                self.run["state"] = "FAILED"
                self.run["error"] = {"code": 2, "message": f"the step {stage} failed"}
                return
            if stage == "champion" and self.up_to_date():
                break
        self.run["state"] = "SUCCEEDED"

    def play_step(self, stage: str) -> Any:
        """Run a step's pod, again after one that failed or went away; the generator returns whether one succeeded."""
        attempts = 1 if self.secret_is_absent() else ATTEMPTS
        for number in range(attempts):
            container = {"name": "main", "image": "stage", "command": ["/kfp-launcher/launch"]}
            container["args"] = ["--pipeline_name", self.name, "--function_to_execute", stage]  # type: ignore[assignment]
            labels = {"pipeline/runid": self.id, "workflows.argoproj.io/workflow": self.workflow["metadata"]["name"]}
            template = {"spec": {"containers": [container]}}
            pod = start_pod(self.world, template, prefix=f"{self.name}-impl", owned_by=self.workflow, labels=labels)
            ended_as = yield from self.attempt(stage, pod, number)
            if ended_as in (End.SUCCEEDED, End.FAILED):
                end_pod(self.world, pod, ended_as)
            if ended_as is End.SUCCEEDED:
                return True
            if self.id in self.api.terminating:
                return False
            yield
        return False

    def attempt(self, stage: str, pod: Object, number: int) -> Any:
        """Do what a step does; the generator returns how its pod ended."""
        if stage == "train" and self.secret_is_absent():
            try:
                connection_from_environment({})
            except StoreError as error:
                self.log(pod, f"error: {error}")
            return End.FAILED
        if stage == "katib_search":
            found = yield from self.tune(pod)
            return found
        if stage == "train":
            epochs = self.epochs()
            resumed = f"resumed at epoch 1/{epochs} step 0 from a checkpoint\n" if number else ""
            self.log(pod, f"{resumed}epoch 1/{epochs}")
            lasting = epochs >= LONG and not number
            found = yield from play_pod(self.world, pod, lambda: self.stopped() if lasting else End.SUCCEEDED)
            return found
        found = yield from play_pod(self.world, pod, lambda: self.stopped() or End.SUCCEEDED)
        if found is End.SUCCEEDED:
            self.leave(stage)
        return found

    def tune(self, pod: Object) -> Any:
        """Follow the run's Experiment, made by the first attempt."""
        plan = build_plan(self.tune_config(), dataset_uri="minio://mlpipeline/data", environment={})
        if self.epochs() >= LONG:  # the search must not be over when its step is evicted
            self.world.held[plan.name] = lambda: self.disturbed
        if self.world.find("experiments", plan.name) is None:
            self.world.create("experiments", dict(plan.body))

        def look() -> End | None:
            if self.stopped():
                if "experiment-left" not in self.world.faults:
                    self.world.delete("experiments", plan.name)
                return End.FAILED
            found = self.world.find("experiments", plan.name)
            outcome = ended(found) if found else ("Failed", "")
            return outcome and (End.SUCCEEDED if outcome[0] == "Succeeded" else End.FAILED)

        found = yield from play_pod(self.world, pod, look)
        self.disturbed = True
        if found is End.EVICTED and "evicted-step-deletes" in self.world.faults:
            self.world.delete("experiments", plan.name)
        return found

    def tune_config(self) -> KatibSearchConfig:
        """Return the parameters of the search step, as the pipeline hands them on."""
        experiment = self.argument("search with Katib", "experiment")
        numbers = {
            name: int(self.parameters[f"search_{name}"]) for name in ("max_epochs", "max_trials", "parallel_trials")
        }
        return KatibSearchConfig(
            experiment=experiment if isinstance(experiment, str) else json.dumps(experiment),
            run_id=self.id,
            network=str(self.parameters["network"]),
            gpus=0,
            **numbers,
        )

    def argument(self, task: str, name: str) -> Any:
        """Return what a task of the pipeline is given: a constant, or a parameter of the run."""
        dags = [self.spec["root"], *self.spec["components"].values()]
        tasks = [each for dag in dags for each in dag.get("dag", {}).get("tasks", {}).values()]
        (found,) = [each for each in tasks if each["taskInfo"]["name"] == task]
        value = found["inputs"]["parameters"][name]
        if "runtimeValue" in value:
            return value["runtimeValue"]["constant"]
        return self.parameters[value["componentInputParameter"].removeprefix("pipelinechannel--")]

    def epochs(self) -> int:
        """Return the epochs of the teacher's training; those of the quick profile where they are the profile's."""
        given = int(self.argument("train teacher", "epochs"))
        return int(PROFILES["quick"]["train"]["epochs"]) if given == AS_PROFILE else given

    def leave(self, stage: str) -> None:
        """Put what a step leaves into the object store."""
        if stage == "report":
            uri = f"{ROOT}/{self.name}/{self.id}"
            missing = f"{self.name}-report-missing" in self.world.faults
            results.leave_report(uri, self.title, self.api.model_dir, kfp=True, missing=missing)
        if stage == "publish":
            results.publish(str(self.argument("publish", "store_uri")), self.model_name())

    def model_name(self) -> str:
        """Return the name under which the run publishes."""
        given = str(self.parameters.get("publish_name") or "")
        return given or derived_model_name(str(self.parameters["network"]), str(self.parameters["dataset"]))

    def up_to_date(self) -> bool:
        """Tell whether the published champion was made from these data."""
        store = open_store(str(self.argument("publish", "store_uri")))
        if not results.champion_of(store, self.model_name()):
            return False
        if "refresh-publishes-again" in self.world.faults:
            results.publish(str(self.argument("publish", "store_uri")), self.model_name(), uuid.uuid4().hex[:12])
        return True

    def stopped(self) -> End | None:
        """Tell whether the run was terminated."""
        return End.FAILED if self.id in self.api.terminating else None

    def secret_is_absent(self) -> bool:
        """Tell whether the Secret that the compiled steps name is not there."""
        names = set(re.findall(r'"secretName": "([^"]+)"', json.dumps(self.platforms)))
        return any(self.world.find("secrets", name) is None for name in names)

    def log(self, pod: Object, text: str) -> None:
        """Write a pod's log."""
        self.world.logs[pod["metadata"]["uid"]] = text + "\n"
