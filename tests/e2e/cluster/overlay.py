"""The overlay: rendered with the given images and storage class, applied, its set-up Jobs waited for, taken away."""

import os
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.cluster import registered
from tests.e2e.cluster.failure import CheckError, check
from tests.e2e.cluster.options import MANIFESTS, STAGE, SUGGESTION, manifest_image, split_image
from tests.e2e.cluster.session import SECRET, Session

OURS = "app.kubernetes.io/part-of=kondense"
KINDS = (
    "jobs,configmaps,secrets,services,serviceaccounts,roles,rolebindings,statefulsets,networkpolicies,resourcequotas,"
    "persistentvolumeclaims,clusterroles,clusterrolebindings,priorityclasses"
)
INPUTS = "kondense-inputs"
IMAGES = "kondense-images"
GONE_S = 60.0
LEFT = {f"Secret/{SECRET}"}  # kept by docs/deploy.md, Uninstall, of all that has our label
GPU, GPUS = "nvidia.com/gpu", "4"


def directory(session: Session) -> Path:
    """Return a kustomization on top of the overlay; it is written when it is not there."""
    path = session.scratch / "overlay"
    if not path.exists():
        path.mkdir()
        (path / "fields.yaml").write_text((MANIFESTS / "images" / "fields.yaml").read_text())
        (path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization(session, path)))
    return path


def kustomization(session: Session, path: Path) -> dict[str, Any]:
    """Return what the options change of the overlay."""
    options = session.options
    images = {STAGE: options.stage_image, SUGGESTION: options.suggestion_image}
    patches = []
    if options.storage_class:
        change = [
            {"op": "add", "path": "/spec/volumeClaimTemplates/0/spec/storageClassName", "value": options.storage_class}
        ]
        patches.append({"target": {"kind": "StatefulSet", "name": "minio"}, "patch": yaml.safe_dump(change)})
    if options.inputs == "skip":
        gone = {"$patch": "delete", "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": INPUTS}}
        patches.append({"target": {"kind": "Job", "name": INPUTS}, "patch": yaml.safe_dump(gone)})
    base = os.path.relpath((MANIFESTS / "overlays" / options.overlay).resolve(), path.resolve())
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [base],
        "configurations": ["fields.yaml"],
        "images": [
            # What manifests/images has made of the name is what stands there now.
            {"name": manifest_image(name).partition("@")[0].rpartition(":")[0], **split_image(image)}
            for name, image in images.items()
            if image
        ],
        "patches": patches,
    } | ({"namespace": options.namespace} if options.namespace != "kubeflow" else {})


def render(session: Session) -> list[dict[str, Any]]:
    """Return the overlay's objects."""
    path = session.scratch / "rendered.yaml"
    if not path.exists():
        path.write_text(session.kubectl("kustomize", str(directory(session))))
    return list(yaml.safe_load_all(path.read_text()))


def objects(session: Session) -> dict[str, dict[str, Any]]:
    """Return all objects of ours in the cluster, by kind and name."""
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in session.kubectl.objects(KINDS, OURS)}


def stands(session: Session) -> bool:
    """Tell whether an overlay of ours is applied."""
    return session.kubectl.get("configmap", IMAGES) is not None


def apply(session: Session) -> str:
    """Apply the overlay and return what kubectl says; one that was not there before goes at the end."""
    if not session.overlay_applied:
        session.overlay_applied = True
        session.overlay_made = not stands(session)
        if session.overlay_made:
            forget_registered(session)
        # An existing Job cannot be changed (docs/deploy.md, Upgrade).
        session.kubectl("delete", "jobs", f"--selector={OURS}", "--ignore-not-found")
    session.keys.clear()  # the credentials Job replaces those that Kubeflow Pipelines publishes
    return session.kubectl("apply", f"--kustomize={directory(session)}")


def forget_registered(session: Session) -> None:
    """Have what kondense-register makes deleted at the end, if nothing of ours is registered now."""
    try:
        known = registered.versions(session)
    except (CheckError, OSError) as error:
        # It may wait for the overlay's object store; nothing of it may be deleted unseen.
        session.say(f"the pipelines that are registered now will stay, for they cannot be read yet: {error}")
        return
    if not any(known.values()):
        session.undo("what kondense-register has made", lambda: registered.forget(session))


def ensure(session: Session) -> None:
    """Apply the overlay unless one stands there with these images, and wait for the set-up Jobs."""
    if session.overlay_applied:
        return
    found = session.kubectl.get("configmap", IMAGES)
    if found is None:
        apply(session)
        wait_for_jobs(session)
        wait_for_pipelines(session)
        return
    stage = found["data"]["stage"]
    problem = (
        f"the overlay that stands runs {stage}, not {session.stage_image}: give it by --stage-image, or run overlay"
    )
    check(stage == session.stage_image, problem)


def wait_for_jobs(session: Session, *names: str) -> list[str]:
    """Wait until the set-up Jobs, or those named, are complete; return their names.

    Raises:
        CheckError: one of them failed, or was not complete within the time.
    """
    wanted = list(names) or [each["metadata"]["name"] for each in render(session) if each["kind"] == "Job"]
    pods = [f"batch.kubernetes.io/job-name={name}" for name in wanted]
    complete: set[str] = set()  # one may be gone, after its ttl, when the last is complete

    def all_complete() -> bool:
        found = {each["metadata"]["name"]: each for each in session.kubectl.objects("jobs", OURS)}
        for name in wanted:
            if name in found and (reason := job_condition(found[name], "Failed")):
                look = session.kubectl.typed("describe", f"job/{name}")
                raise CheckError(
                    f"the set-up Job {name} failed: {reason}", look, pods=[f"batch.kubernetes.io/job-name={name}"]
                )
        complete.update(name for name in wanted if name in found and job_condition(found[name], "Complete"))
        return complete.issuperset(wanted)

    look = session.kubectl.typed("get", "jobs,pods", f"--selector={OURS}")
    what = f"the Jobs {', '.join(wanted)} to be complete"
    session.wait(what, all_complete, look, timeout_s=session.options.setup_timeout_s, pods=pods)
    return wanted


def wait_for_pipelines(session: Session) -> None:
    """Wait until Kubeflow Pipelines answers: the credentials Job may have restarted it, under our port-forward too."""
    for forward in session.forwards.values():
        forward.stop()
    session.connected = None
    look = session.kubectl.typed("get", "deployments,pods", "--selector=app=ml-pipeline")
    session.wait("Kubeflow Pipelines to answer", session.kfp, look, timeout_s=session.options.setup_timeout_s)


def job_condition(job: dict[str, Any], kind: str) -> str:
    """Return the message of a Job's condition, or its name; empty when it does not hold."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] == kind and condition["status"] == "True":
            return str(condition.get("message") or condition.get("reason") or kind)
    return ""


def run_job_again(session: Session, name: str) -> None:
    """Delete a set-up Job and apply it again, as an upgrade does, and wait until it is complete."""
    session.kubectl.delete("job", name)
    (job,) = [each for each in render(session) if each["kind"] == "Job" and each["metadata"]["name"] == name]
    session.kubectl("apply", "--filename=-", content=yaml.safe_dump(job))
    wait_for_jobs(session, name)


def identity(found: dict[str, Any]) -> tuple[Any, ...]:
    """Return what must be the same after the overlay was applied a second time."""
    if found["kind"] == "Job":  # it may have gone meanwhile, after its ttl
        return ()
    content = {key: value for key, value in found.items() if key not in ("metadata", "status")}
    return found["metadata"]["uid"], found["metadata"].get("generation"), content


def take_away(session: Session) -> None:
    """Delete the overlay, its volume and its credentials."""
    if not session.overlay_made:
        return
    session.kubectl("delete", f"--kustomize={directory(session)}", "--ignore-not-found", "--wait=false")
    session.kubectl("delete", "persistentvolumeclaim/data-minio-0", "secret/minio-root", "--ignore-not-found")
    wait_until_gone(session)


def wait_until_gone(session: Session) -> None:
    """Wait until nothing of ours is left but what stays; Kubernetes collects what owners leave a moment later."""
    limit_s = min(GONE_S, session.options.run_timeout_s)
    look = session.kubectl.typed("get", KINDS, f"--selector={OURS}")
    if others := set(objects(session)) - LEFT:
        what = f"our objects to go ({', '.join(sorted(others))})"
        session.wait(what, lambda: not set(objects(session)) - LEFT, look, timeout_s=limit_s)


def pretend_gpus(session: Session) -> None:
    """Give every node without a GPU four that are none, as manifests/overlays/kind/up does."""
    for node in session.kubectl.objects("nodes"):
        name = node["metadata"]["name"]
        if GPU not in node.get("status", {}).get("capacity", {}):
            _set_gpus(session, name, f'"{GPUS}"')
            session.undo(f"pretended GPUs of node {name}", lambda name=name: _set_gpus(session, name, "null"))
    check(
        all(GPU in node["status"]["capacity"] for node in session.kubectl.objects("nodes")),
        "the nodes must have GPUs after the patch, but do not",
        session.kubectl.typed("describe", "nodes"),
    )


def _set_gpus(session: Session, node: str, value: str) -> None:
    patch = f'{{"status": {{"capacity": {{"{GPU}": {value}}}}}}}'
    session.kubectl("patch", "node", node, "--subresource=status", "--type=merge", f"--patch={patch}")
