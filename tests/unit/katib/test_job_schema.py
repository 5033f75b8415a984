"""Jobs in trial templates. The verdicts are those of Katib 0.19's own validator, run on each of these Jobs."""

import copy
from typing import Any

import pytest
from kondense.katib.job_schema import _fields, broken
from kondense.katib.quantities import canonical
from kubernetes.client import models

JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {"template": {"spec": {"containers": [{"name": "trial", "image": "x"}], "restartPolicy": "Never"}}},
}


def verdict(path: str, value: object) -> list[str]:
    """Return the rules that the Job breaks with a value at a path; ``pod`` and ``container`` begin at theirs."""
    job = copy.deepcopy(JOB)
    pod = job["spec"]["template"]["spec"]
    *parents, last = path.split(".")
    place = {"job": job, "pod": pod, "container": pod["containers"][0]}[parents[0]]
    for parent in parents[1:]:
        place = place.setdefault(parent, {})
    place[last] = value
    return [violation.rule for violation in broken(job, "job")]


def volume(**source: object) -> list[dict[str, object]]:
    return [{"name": "x", **source}]


TAKEN: list[tuple[str, object]] = [
    ("container.securityContext", {}),
    ("container.resources", {}),
    ("pod.affinity", {}),
    ("pod.volumes", volume(emptyDir={})),
    ("pod.priority", 0),
    ("pod.automountServiceAccountToken", False),
    ("pod.securityContext.runAsUser", 2**40),
    ("pod.securityContext.sysctls", [{"name": "a", "value": ""}]),
    ("pod.tolerations", [{"key": "a", "tolerationSeconds": 0}]),
    ("job.spec.ttlSecondsAfterFinished", 0),
    ("job.spec.backoffLimit", 3.0),
    ("job.status", {}),
    ("job.metadata", {"creationTimestamp": "2024-01-01T00:00:00Z"}),
    ("job.metadata", {"managedFields": [{"fieldsV1": {"a": {}}}]}),
    ("container.resources.limits", {"cpu": 4, "memory": "1024Mi", "nvidia.com/gpu": "1"}),
    ("container.resources.requests", {"cpu": None}),
    ("container.livenessProbe.httpGet", {"port": "http"}),
    ("container.livenessProbe.httpGet", {"port": ""}),
    ("container.ports", [{"containerPort": 0}]),
    ("container.restartPolicyRules", [{"action": "Restart"}]),  # fields of Kubernetes 1.34
    ("pod.resources.limits", {"cpu": "0.5"}),
    ("job.spec.podFailurePolicy.rules", []),
    ("pod.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", None),
    ("pod.volumes", volume(emptyDir={"sizeLimit": "1536Mi"})),
]


@pytest.mark.parametrize(("path", "value"), TAKEN, ids=str)
def test_what_katib_takes_is_taken(path: str, value: object) -> None:
    assert verdict(path, value) == []


REFUSED: dict[str, list[tuple[str, object]]] = {
    "must be left out or have a value": [
        ("container.command", None),
        ("container.image", None),
        ("job.spec.backoffLimit", None),
        ("job.metadata", None),
        ("job.metadata", {"creationTimestamp": None}),  # as `kubectl create --dry-run=client` writes it
        ("pod.automountServiceAccountToken", None),
        ("pod.volumes", volume(emptyDir=None)),
        ("container.livenessProbe.httpGet", {"port": None}),
        ("container.resources", {"limits": None}),
        ("job.spec.podFailurePolicy.rules", [{"action": None}]),
    ],
    "must be left out where it is empty, false or 0": [
        ("container.image", ""),
        ("container.command", []),
        ("container.env", [{"name": "X", "value": ""}]),
        ("container.tty", False),
        ("container.volumeMounts", [{"name": "x", "mountPath": "/x", "readOnly": False}]),
        ("container.livenessProbe.initialDelaySeconds", 0),
        ("container.resources", {"limits": {}}),
        ("pod.hostNetwork", False),
        ("pod.nodeSelector", {}),
        ("pod.volumes", volume(configMap={"name": "c", "items": []})),
        ("job.metadata", {"labels": {}}),
    ],
    "must not be null": [("container.args", [None]), ("job.metadata", {"labels": {"a": None}})],
    "must be a string": [("container.args", [1]), ("container.image", {}), ("job.metadata", {"labels": {"a": 1}})],
    "must be true or false": [("container.tty", "true")],
    "must be an integer of 32 bits": [
        ("job.spec.backoffLimit", 3.5),
        ("job.spec.backoffLimit", 2**31),
        ("job.spec.backoffLimit", True),
        ("container.ports", [{"containerPort": "80"}]),
        ("pod.volumes", volume(configMap={"name": "c", "defaultMode": "0644"})),
    ],
    "must be an integer of 64 bits": [
        ("pod.securityContext.runAsUser", 2**63),
        ("job.spec.activeDeadlineSeconds", 1e20),
    ],
    "must be a string or an integer of 32 bits": [
        ("container.livenessProbe.httpGet", {"port": value}) for value in ([1], 80.5, True, 2**40)
    ],
    "must be a time like": [
        ("job.metadata", {"creationTimestamp": time})
        for time in ("yesterday", "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00+01:00", 0)
    ],
    "must be a quantity like": [
        ("container.resources.limits", {"cpu": value})
        for value in ("1ki", "1 Gi", "", "1e", "1Kib", "1K", "1_0", True, "0x10", "1e3i", "1..2")
    ],
    "must be written as '1'": [
        ("container.env", [{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "a", "divisor": "1000m"}}}])
    ],
    "must be written as '1Gi'": [("pod.volumes", volume(emptyDir={"sizeLimit": "1024Mi"}))],
    "must be written as '1k'": [("pod.volumes", volume(emptyDir={"sizeLimit": 1000}))],
    "must be written as '500m'": [("pod.overhead", {"cpu": "0.5"})],
    "unknown field of a Job (did you mean command?)": [("container.Command", ["x"])],
    "must have a name": [("pod.volumes", [{"emptyDir": {}}])],  # Katib takes it, Kubernetes does not
}


@pytest.mark.parametrize(
    ("path", "value", "rule"), [(*each, rule) for rule, cases in REFUSED.items() for each in cases], ids=str
)
def test_what_katib_refuses_is_refused_once(path: str, value: object, rule: str) -> None:
    [found] = verdict(path, value)
    assert rule in found


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *(
            (text, text)
            for text in ("1Gi", "1536Mi", "1k", "100", "1500m", "1023", "1024", "512Ki", "0", "1n", "1.001")
        ),
        *((text, text) for text in ("-1Gi", "+1Gi", "01", "1e0", "1E3", "12e6", "1000000Ki", "1023Ki", "2048", "1E")),
        *(
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1.1Ki", "1126400m"),
            (".5Ki", "512"),
            ("8Ki", "8Ki"),
        ),
        *(("1000", "1k"), ("1000m", "1"), ("0.1", "100m"), ("0.001", "1m"), ("0.0001", "100u"), ("1000n", "1u")),
        *(
            ("1.0", "1"),
            ("1000k", "1M"),
            ("12e5", "1200e3"),
            ("0Gi", "0"),
            ("1.1", "1100m"),
            ("8000Ei", "9223372036854775807"),
        ),
        *((text, None) for text in ("", "1K", "1ki", "1 Gi", "1e", "1.2.3", "Gi", "e3", ".", "-", "1Gib", "\u0661")),
    ],
)
def test_quantities_are_written_as_by_kubernetes(text: str, written: str | None) -> None:
    assert canonical(text) == written


SCALARS = {"bool": {"bool"}, "int": {"int32", "int64"}, "str": {"string", "quantity"}, "datetime": {"time"}}


def test_fields_are_those_of_the_python_client() -> None:
    """The client was generated from the API's OpenAPI document, the table from its Go types."""
    types = _fields()
    both = [name for name in types if hasattr(models, f"V1{name}")]
    assert len(both) > 100
    for name in both:
        model = getattr(models, f"V1{name}")
        for attribute, key in model.attribute_map.items():
            if (name, key) == ("PodResourceClaim", "source"):  # of Kubernetes until 1.30
                continue
            kind = types[name][key].strip("*?")
            client = model.openapi_types[attribute]
            assert kind in SCALARS.get(client, {kind}), (name, key, kind, client)
            assert kind.startswith("[") == client.startswith("list["), (name, key)
            assert kind.startswith("{") == client.startswith("dict("), (name, key)
