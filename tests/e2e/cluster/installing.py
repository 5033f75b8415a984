"""Scenarios of the installation: the overlay, registering, uninstalling."""

import re

import yaml
from kondense_pipelines.cluster.recurring import read_schedule
from kondense_pipelines.deploy.algorithms import CONFIG_MAP, KEY, SECTIONS

from tests.e2e.cluster import overlay
from tests.e2e.cluster.failure import CheckError, check
from tests.e2e.cluster.options import MANIFESTS, ROOT, SUGGESTION, manifest_image
from tests.e2e.cluster.registered import SCHEDULE, recurring_runs, versions
from tests.e2e.cluster.session import Session

REGISTER = "kondense-register"
HARMLESS = ("Warning:",)
DEPLOY = "docs/deploy.md"


def apply_overlay(session: Session) -> None:
    """The overlay renders, applies, its set-up Jobs become complete; applied again it changes and breaks nothing."""
    rendered = overlay.render(session)
    images = {each["data"]["stage"] for each in rendered if each["metadata"]["name"] == "kondense-images"}
    check(images == {session.stage_image}, f"the overlay must name {session.stage_image}, but names {images}")
    if session.options.storage_class and session.options.overlay != "seaweedfs":
        (claims,) = [each["spec"]["volumeClaimTemplates"] for each in rendered if each["kind"] == "StatefulSet"]
        check(claims[0]["spec"]["storageClassName"] == session.options.storage_class, "the storage class is not there")
    overlay.apply(session)
    jobs = overlay.wait_for_jobs(session)
    overlay.wait_for_pipelines(session)
    before = {name: overlay.identity(found) for name, found in overlay.objects(session).items()}
    overlay.apply(session)
    overlay.wait_for_jobs(session)
    after = {name: overlay.identity(found) for name, found in overlay.objects(session).items()}
    changed = [name for name in before if name in after and before[name] != after[name]]
    lost = [name for name in before if name not in after and not name.startswith("Job/")]  # a Job goes after its ttl
    look = session.kubectl.typed("diff", f"--kustomize={MANIFESTS / 'overlays' / session.options.overlay}")
    check(not changed, f"applying again must change nothing, but changed {', '.join(changed)}", look)
    check(not lost, f"applying again must keep everything, but {', '.join(lost)} went away", look)
    session.note(f"{len(jobs)} Jobs, {len(after)} objects")


def register_twice(session: Session) -> None:
    """The registering Job run twice makes one version of each pipeline; the recurring run is there, paused."""
    overlay.run_job_again(session, REGISTER)
    first = versions(session)
    overlay.run_job_again(session, REGISTER)
    second = versions(session)
    look = session.kubectl.typed("logs", f"job/{REGISTER}")
    for name, before in first.items():
        check(before, f"the pipeline {name} must be registered, but has no version", look)
        more = sorted(second[name] - before)
        check(not more, f"registering again must make no version of {name}, but made {', '.join(more)}", look)
    wanted = read_schedule(SCHEDULE)
    found = [each for each in recurring_runs(session) if each.display_name == wanted.name]
    check(len(found) == 1, f"there must be one recurring run {wanted.name}, but there are {len(found)}", look)
    state = "ENABLED" if wanted.enabled else "DISABLED"
    check(found[0].status == state, f"the recurring run must be {state}, but is {found[0].status}", look)
    session.note(f"{sum(map(len, second.values()))} versions, recurring run {state.lower()}")


def uninstall(session: Session) -> None:
    """The commands of docs/deploy.md, Uninstall, keep only what it names."""
    check(not (left := session.clean_up()), f"before the store goes, what was made must go, but: {'; '.join(left)}")
    before = set(overlay.objects(session))
    commands = documented_commands(session)
    complaints = session.kubectl.script(commands, ROOT, timeout_s=session.options.setup_timeout_s)
    # `delete -k` complains of the Jobs that the first command has deleted, and deletes the rest.
    wrong = [line for line in complaints if not any(word in line for word in HARMLESS)]
    check(not wrong, f"the commands of {DEPLOY} must work, but said: {' '.join(wrong)[:600]}", *commands.splitlines())
    overlay.wait_until_gone(session)
    check_katib_is_as_before(session)
    session.overlay_made = False
    absent = sum("NotFound" in line for line in complaints)
    note = f", the documented commands said NotFound {absent} times" if absent else ""
    session.note(f"{len(before)} objects before, {len(overlay.objects(session))} after{note}")


def documented_commands(session: Session) -> str:
    """Return the shell commands of docs/deploy.md, Uninstall, for this session's overlay and namespace."""
    text = (ROOT / DEPLOY).read_text()
    match = re.search(r"^## Uninstall\n+```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if not match:
        raise CheckError(f"{DEPLOY} must have commands in its chapter Uninstall, but has none")
    lines = match[1].splitlines()
    if session.options.overlay == "seaweedfs":  # it has no volume of ours
        lines = [line for line in lines if "data-minio-0" not in line]
    commands = "\n".join(lines).replace("manifests/overlays/cluster", str(overlay.directory(session)))
    return commands.replace("-n kubeflow", f"-n {session.options.namespace}")


def check_katib_is_as_before(session: Session) -> None:
    """Raise CheckError unless Katib's configuration has lost our algorithms."""
    found = session.kubectl.get("configmap", CONFIG_MAP) or {"metadata": {}, "data": {KEY: "{}"}}
    image = session.options.suggestion_image or manifest_image(SUGGESTION)
    runtime = yaml.safe_load(found["data"][KEY]).get("runtime") or {}
    entries = [each for section in SECTIONS for each in runtime.get(section) or []]
    ours = [each["algorithmName"] for each in entries if each.get("image") == image]
    look = session.kubectl.typed("get", f"configmap/{CONFIG_MAP}", "--output=yaml")
    check(not ours, f"Katib's configuration must have lost our algorithms, but still names {', '.join(ours)}", look)
    kept = sorted(set(SECTIONS.values()) & set(found["metadata"].get("annotations") or {}))
    check(not kept, f"Katib's configuration must have lost our annotations, but has {', '.join(kept)}", look)
