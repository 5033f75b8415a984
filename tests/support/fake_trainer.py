"""A Kubernetes API server with Kubeflow Trainer: TrainJobs, checked as its schema and its webhook do, and pods' logs.

The rules are those of the CustomResourceDefinition and of the torch plugin of Trainer 2.3, in our own words and as far
as the fields that Kondense sets go. What only a cluster can show: the controllers, JobSet, scheduling, real logs.
"""

import re
from typing import Any

import jsonschema

from tests.support.fake_kubernetes import Handler, Server, status

TRAIN_JOB = re.compile(r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/([^/]+)/trainjobs(?:/([^/]+))?")
PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods")
LOG = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/log")
RESERVED = ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
TEXT, QUANTITIES = {"type": "string"}, {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties; the API drops unknown ones, and tests should see it."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


SECRET = closed(["secretKeyRef"], secretKeyRef=closed(["key"], name=TEXT, key=TEXT, optional={"type": "boolean"}))
WORDS = {"type": "array", "maxItems": 128, "items": {"type": "string", "maxLength": 65536}}
SCHEMA = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "trainer.kubeflow.org/v1alpha1"},
    kind={"const": "TrainJob"},
    metadata=closed(
        ["name"],
        name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
        labels={"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
        annotations={"type": "object", "additionalProperties": TEXT},
    ),
    spec=closed(
        ["runtimeRef"],
        runtimeRef=closed(
            ["name"],
            name={"type": "string", "minLength": 1, "maxLength": 253},
            apiGroup={"type": "string", "maxLength": 253},
            kind={"type": "string", "maxLength": 253},
        ),
        trainer=closed(
            [],
            image={"type": "string", "maxLength": 500},
            command=WORDS,
            args=WORDS,
            env={"type": "array", "maxItems": 128, "items": closed(["name"], name=TEXT, value=TEXT, valueFrom=SECRET)},
            numNodes={"type": "integer"},
            numProcPerNode={"type": "integer"},
            resourcesPerNode=closed([], limits=QUANTITIES, requests=QUANTITIES),
        ),
    ),
)


def refusal(body: Any) -> tuple[int, dict[str, Any]] | None:
    """Return how the API refuses a TrainJob; None if it takes it."""
    for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(body):
        where = ".".join(map(str, error.absolute_path))
        return 422, status(422, "Invalid", f'TrainJob "x" is invalid: {where}: {error.message}')
    names = [each["name"] for each in body["spec"].get("trainer", {}).get("env", [])]
    if len(set(names)) < len(names) or set(names) & {*RESERVED}:
        return 403, denied(f"spec.trainer.env: Invalid value: {names}: must not have reserved envs")
    return None


def denied(message: str) -> dict[str, Any]:
    """Return what the API answers when Trainer's webhook refuses a TrainJob."""
    text = f'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: {message}'
    return status(403, "Forbidden", text)


class Trainer(Server):
    """The server.

    Attributes:
        jobs: TrainJobs by namespace and name.
        installed: False: the API knows no TrainJobs.
        output: what the first node has written; None: it has no pod.
        restarts: of its container.
    """

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = TrainerHandler
        self.jobs: dict[tuple[str, str], dict[str, Any]] = {}
        self.installed = True
        self.output: str | None = None
        self.restarts = 0


class TrainerHandler(Handler):
    """Answers one request."""

    server: Trainer

    def right_answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """Return status code and body."""
        if LOG.fullmatch(path):
            return 200, self.server.output or ""
        if PODS.fullmatch(path):
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.pods(query)}
        match = TRAIN_JOB.fullmatch(path)
        if not match:
            return super().right_answer(method, path, query, body)
        if not self.server.installed:
            return 404, "404 page not found\n"
        if method == "POST" and (refused := refusal(body)):
            return refused
        place = (match[1], "trainjobs.trainer.kubeflow.org", match[2])
        return self.custom_object(method, self.server.jobs, place, body)

    def pods(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the first node's pod if its labels are those that are asked for."""
        wanted = dict(each.split("=") for each in query["labelSelector"][0].split(","))
        for _, name in self.server.jobs:
            labels = {
                "jobset.sigs.k8s.io/jobset-name": name,
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
                "batch.kubernetes.io/job-completion-index": "0",
            }
            if self.server.output is not None and wanted.items() <= labels.items():
                state = {"running": {"startedAt": "2026-11-24T04:00:00Z"}}
                container = {"name": "node", "restartCount": self.server.restarts, "state": state, "ready": True}
                container |= {"image": "i", "imageID": "i"}
                metadata = {"name": f"{name}-node-0-0-x7x7x", "uid": "pod-0", "labels": labels}
                return [{"metadata": metadata, "status": {"containerStatuses": [container]}}]
        return []
