"""A compiled KFP pipeline as an Argo Workflow, for clusters without Kubeflow Pipelines.

The Workflow is made from the pipeline's IR, so graph, parameters and resources are declared once. Each task becomes one
template that calls the stage's command, ``python3 -m kondense.cli``; artifacts are stored in an S3 bucket, file by
file. KFP's metrics and its reuse of earlier results have no counterpart here.

Source: kubeflow/pipelines 2.17 ``pipeline_spec.proto`` and ``kubernetes_executor_config.proto``; the fields of Argo
Workflows 4.0. Only flat pipelines: loops, conditions, nested pipelines and parameters that a task returns are refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kondense.config import flag
from kondense.errors import InputError
from kondense.katib.yaml_text import Dumper
from kondense.stages import STAGES, VIEWS, Stage

from kondense_pipelines.graphs.resources import Resources

BUCKET = "mlpipeline"
PREFIX = "kondense/argo"  # of the keys: PREFIX/WORKFLOW/TASK/ARTIFACT
SECONDS_KEPT = 7 * 24 * 3600  # after its end
INPUTS = "/artifacts/inputs"  # managed by Argo: in a volume of the pod they would be unreadable for its user
OUTPUTS = "/artifacts/outputs"  # a volume: Argo takes outputs of a container that is not root from volumes only
SCRATCH = {"outputs": OUTPUTS, "scratch": "/tmp"}
# Argo's init container may run as another user, and files get its permissions only.
READABLE = {"mode": 0o755, "recurseMode": True}
USER = {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}  # of the stage image
POD_SECURITY = {"runAsNonRoot": True, **USER, "seccompProfile": {"type": "RuntimeDefault"}}
SECURITY = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

NO_RETRY = {"limit": "0"}
DISPLAY_NAME = 63  # characters

# The keys of a task and of its executor that are translated; any other one is an error.
TASK_KEYS = {"taskInfo", "componentRef", "inputs", "dependentTasks", "cachingOptions", "retryPolicy"}
EXECUTOR_KEYS = {
    "secretAsEnv",
    "emptyDirMounts",
    "nodeSelector",
    "tolerations",
    "securityContext",
}  # USER replaces the last
REASONS = {"triggerPolicy": "a condition", "parameterIterator": "a loop", "artifactIterator": "a loop"}


def workflow_text(package: Path, store: Resources, bucket: str = BUCKET) -> str:
    """Return the YAML of ``make_workflow``."""
    return yaml.dump(make_workflow(package, store, bucket), Dumper=Dumper, sort_keys=False, width=120)


def make_workflow(package: Path, store: Resources, bucket: str = BUCKET) -> dict[str, Any]:
    """Return the Workflow of a compiled pipeline.

    Args:
        package: as ``kondense compile`` writes it, with the resources of its steps.
        store: the object store of the artifacts, and the Secret with its keys.
        bucket: of that store; it must exist.

    Raises:
        InputError: a Workflow cannot express the pipeline; the text names the task and the reason.
    """
    spec, *platforms = yaml.safe_load_all(package.read_text())
    info, tasks = spec["pipelineInfo"], spec["root"]["dag"]["tasks"]
    equipment = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
    for name, task in tasks.items():
        if reason := obstacle(task, spec["components"][task["componentRef"]["name"]], equipment):
            where = f"task {name!r} of {info['name']!r}"
            raise InputError(f"an Argo Workflow takes only stages in a flat graph, but {where} has {reason}.")
    texts = {"title": info.get("displayName", ""), "description": info.get("description", "")}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "generateName": f"{info['name']}-",
            "annotations": {f"workflows.argoproj.io/{key}": text for key, text in texts.items()},
        },
        "spec": {
            "entrypoint": info["name"],
            "arguments": {"parameters": workflow_parameters(spec["root"]["inputDefinitions"]["parameters"])},
            "securityContext": POD_SECURITY,
            "ttlStrategy": {"secondsAfterCompletion": SECONDS_KEPT},
            "templates": [
                {
                    "name": info["name"],
                    "dag": {"tasks": [dag_task(*each) for each in tasks.items()]},
                    # Stated, because a controller's defaults may repeat the graph; here single steps are retried.
                    "retryStrategy": NO_RETRY,
                },
                *(stage_template(name, spec, equipment, store, bucket) for name in tasks),
            ],
        },
    }


def obstacle(task: Mapping[str, Any], component: Mapping[str, Any], equipment: Mapping[str, Any]) -> str:
    """Return why a task cannot become a template; empty if it can."""
    reasons = [REASONS.get(key, key) for key in sorted(set(task) - TASK_KEYS)]
    if "executorLabel" not in component:
        reasons.append("a pipeline of its own")
    inputs = task.get("inputs", {})
    for key, value in inputs.get("parameters", {}).items():
        if "runtimeValue" not in value and "componentInputParameter" not in value:
            reasons.append(f"a parameter, {key}, that another task returns")
        elif "{{" in str(value.get("runtimeValue", {}).get("constant", "")):
            reasons.append(f"a value, that of {key}, with '{{{{' in it")
    for key, value in inputs.get("artifacts", {}).items():
        if "taskOutputArtifact" not in value:
            reasons.append(f"an artifact, {key}, that no task of the graph makes")
    reasons += sorted(set(equipment.get(component.get("executorLabel", ""), {})) - EXECUTOR_KEYS)
    return reasons[0] if reasons else ""


def workflow_parameters(definitions: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the Workflow's arguments: the pipeline's parameters with their defaults and descriptions."""
    return [
        {
            "name": name,
            "value": as_text(definition["defaultValue"], definition["parameterType"]),
            "description": definition.get("description", ""),
        }
        for name, definition in definitions.items()
    ]


def as_text(value: Any, kind: str) -> str:
    """Return ``value`` as a flag takes it. All numbers of the IR are doubles, so 3 is 3.0 there."""
    if kind == "NUMBER_INTEGER":
        return str(int(value))
    return str(value).lower() if kind == "BOOLEAN" else str(value)


def dag_task(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node of the graph: its template, its dependencies, the sources of its artifacts."""
    artifacts = []
    for key, value in task.get("inputs", {}).get("artifacts", {}).items():
        source = value.get("taskOutputArtifact", {})
        place = f"tasks.{source.get('producerTask')}.outputs.artifacts.{source.get('outputArtifactKey')}"
        artifacts.append({"name": key, "from": f"{{{{{place}}}}}"})
    dependencies = list(task.get("dependentTasks", ()))
    return {"name": name, "template": name, "dependencies": dependencies, "arguments": {"artifacts": artifacts}}


def stage_template(
    name: str, spec: Mapping[str, Any], equipment: Mapping[str, Any], store: Resources, bucket: str
) -> dict[str, Any]:
    """Return the template that calls one task's stage."""
    task = spec["root"]["dag"]["tasks"][name]
    component = spec["components"][task["componentRef"]["name"]]
    container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
    stage = STAGES[container["args"][container["args"].index("--function_to_execute") + 1]]
    inputs = {key: f"{INPUTS}/{key}" for key in task["inputs"].get("artifacts", {})}
    outputs = {each.name: f"{OUTPUTS}/{each.name}" for each in stage.outputs if each.type not in VIEWS}
    places = {key: s3_place(store, bucket, f"{name}/{key}") for key in outputs}
    return {
        "name": name,
        "annotations": {"workflows.argoproj.io/display-name": display_name(task["taskInfo"]["name"])},
        "metadata": {
            "labels": {
                "app.kubernetes.io/name": "kondense",
                "app.kubernetes.io/component": stage.name.replace("_", "-"),
            }
        },
        "inputs": {"artifacts": [{"name": key, "path": path, **READABLE} for key, path in inputs.items()]},
        "outputs": {
            "artifacts": [
                {"name": key, "path": path, "archive": {"none": {}}, "s3": places[key]} for key, path in outputs.items()
            ]
        },
        "retryStrategy": retry(task.get("retryPolicy", {})),
        **pod(
            {
                "image": container["image"],
                "command": ["python3", "-m", "kondense.cli", stage.name],
                "args": [*directory_flags(stage, inputs | outputs), *parameter_flags(task, component, stage)],
                "securityContext": SECURITY,
            },
            container,
            equipment.get(component["executorLabel"], {}),
        ),
    }


def display_name(text: str) -> str:
    """Return a task's name as Argo's pages show it: letters, digits, dashes and dots, 2 to 63 of them."""
    name = re.sub(r"[^a-zA-Z0-9.-]+", "-", text).strip("-.")[:DISPLAY_NAME].rstrip("-.")
    return name if len(name) > 1 else f"step-{name or 0}"


def directory_flags(stage: Stage, paths: Mapping[str, str]) -> list[str]:
    """Return the flags of a stage's artifacts."""
    flags = []
    for artifact in stage.directories:
        places = [paths[name] for name in artifact.names if name in paths]
        if artifact.several:
            flags += [flag(artifact.directory), *places]
        else:
            flags += [f"{flag(artifact.directory)}={path}" for path in places]
    return flags


def parameter_flags(task: Mapping[str, Any], component: Mapping[str, Any], stage: Stage) -> list[str]:
    """Return the flags of a task's parameters: its constants, and references to the Workflow's arguments."""
    flags = []
    known = stage.config_class.__dataclass_fields__
    for key, value in task["inputs"].get("parameters", {}).items():
        if key not in known:
            continue  # the profile and the step's name: in a Workflow the profile is settled
        if "componentInputParameter" in value:
            text = f"{{{{workflow.parameters.{value['componentInputParameter']}}}}}"
        else:
            kind = component["inputDefinitions"]["parameters"][key]["parameterType"]
            text = as_text(value["runtimeValue"]["constant"], kind)
        flags.append(f"{flag(key)}={text}")  # in one word: a value may begin with a dash or be empty
    return flags


def retry(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template's further attempts. KFP's longest pause is Argo's ``cap``: its ``maxDuration`` limits all."""
    if not policy:
        return dict(NO_RETRY)
    factor = f"{policy['backoffFactor']:g}"
    backoff = {"duration": policy["backoffDuration"], "factor": factor, "cap": policy["backoffMaxDuration"]}
    return {"limit": str(policy["maxRetryCount"]), "retryPolicy": "Always", "backoff": backoff}


def s3_place(store: Resources, bucket: str, artifact: str) -> dict[str, Any]:
    """Return the place of an output artifact."""
    return {
        "endpoint": store.endpoint,
        "bucket": bucket,
        "insecure": not store.secure,
        "accessKeySecret": {"name": store.secret, "key": "accesskey"},
        "secretKeySecret": {"name": store.secret, "key": "secretkey"},
        "key": f"{PREFIX}/{{{{workflow.uid}}}}/{artifact}",
    }


def pod(command: Mapping[str, Any], container: Mapping[str, Any], equipment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pod's part of a template: the command with the compiled task's variables, resources, volumes."""
    variables = [dict(each) for each in container.get("env", ())]
    for secret in equipment.get("secretAsEnv", ()):
        for pair in secret["keyToEnv"]:
            source = {"name": secret["secretName"], "key": pair["secretKey"], "optional": secret.get("optional", False)}
            variables.append({"name": pair["envVar"], "valueFrom": {"secretKeyRef": source}})
    resources = container.get("resources", {})
    requests = {"cpu": resources.get("resourceCpuRequest"), "memory": resources.get("resourceMemoryRequest")}
    limits = {"cpu": resources.get("resourceCpuLimit"), "memory": resources.get("resourceMemoryLimit")}
    if "accelerator" in resources:
        limits[resources["accelerator"]["resourceType"]] = resources["accelerator"]["resourceCount"]
    groups = {"requests": requests, "limits": limits}
    mounts, volumes = dict(SCRATCH), [{"name": name, "emptyDir": {}} for name in SCRATCH]
    for each in equipment.get("emptyDirMounts", ()):
        mounts[each["volumeName"]] = each["mountPath"]
        settings = {key: each[key] for key in ("medium", "sizeLimit") if key in each}
        volumes.append({"name": each["volumeName"], "emptyDir": settings})
    return {
        "container": {
            **command,
            "env": variables,
            "resources": {key: {name: size for name, size in group.items() if size} for key, group in groups.items()},
            "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
        },
        "volumes": volumes,
        "nodeSelector": equipment.get("nodeSelector", {}).get("labels", {}),
        "tolerations": equipment.get("tolerations", []),
    }
