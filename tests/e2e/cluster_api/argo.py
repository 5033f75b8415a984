"""Argo Workflows: a Workflow that a user has created is played as one step, its report.

Honest in: the phase, the rule for display names, where the artifacts lie (the report's own S3 key of the template),
published models. Played: all else; tests/support/local_argo.py runs the commands of such a Workflow for real.
"""

import re
from pathlib import Path
from typing import Any

from tests.e2e.cluster.packages import TITLE
from tests.e2e.cluster_api import results
from tests.e2e.cluster_api.objects import Object
from tests.e2e.cluster_api.pods import End, end_pod, play_pod, start_pod
from tests.e2e.cluster_api.world import Player, World

# As Argo 4.0.5 checks it.
DISPLAY_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-.]{0,61}[a-zA-Z0-9]")


def play(world: World, workflow: Object, model_dir: Path) -> Player | None:
    """Return the player of a Workflow; Kubeflow Pipelines' own are played elsewhere."""
    return _play(world, workflow, model_dir) if workflow["spec"] else None


def display_names(workflow: Object) -> list[str]:
    """Return the names under which the templates' steps are shown."""
    annotations = [each.get("annotations", {}) for each in workflow["spec"]["templates"]]
    key = "workflows.argoproj.io/display-name"
    return [each[key] for each in annotations if key in each]


def _play(world: World, workflow: Object, model_dir: Path) -> Any:
    name, uid = workflow["metadata"]["name"], workflow["metadata"]["uid"]
    if wrong := [each for each in display_names(workflow) if not DISPLAY_NAME.fullmatch(each)]:
        world.set_status("workflows", name, {"phase": "Error", "message": f"invalid display name {wrong[0]!r}"})
        return
    world.set_status("workflows", name, {"phase": "Running"})
    (template,) = [each for each in workflow["spec"]["templates"] if each["name"] == "report"]
    spec = {"spec": {"containers": [{**template["container"], "name": "main"}]}}
    labels = {"workflows.argoproj.io/workflow": name}
    pod = start_pod(world, spec, prefix=name, owned_by=workflow, labels=labels)
    yield from play_pod(world, pod, lambda: End.SUCCEEDED)
    if "workflow-fails" in world.faults:
        end_pod(world, pod, End.FAILED, "the fake lets it fail")
        world.set_status("workflows", name, {"phase": "Failed"})
        return
    place = template["outputs"]["artifacts"][0]["s3"]
    key = place["key"].replace("{{workflow.uid}}", uid).partition("/report/")[0]
    results.leave_report(f"minio://{place['bucket']}/{key}", TITLE, model_dir, kfp=False, missing=False)
    parameters = {each["name"]: each["value"] for each in workflow["spec"]["arguments"]["parameters"]}
    (publishing,) = [each for each in workflow["spec"]["templates"] if each["name"] == "publish"]
    (store_uri,) = [each for each in publishing["container"]["args"] if each.startswith("--store-uri=")]
    given = "{{workflow.parameters.publish_store_uri}}", parameters.get("publish_store_uri", "")
    results.publish(store_uri.partition("=")[2].replace(*given), parameters["publish_name"])
    end_pod(world, pod, End.SUCCEEDED)
    world.set_status("workflows", name, {"phase": "Succeeded"})
