"""The kinds of object that the fake API server knows, and what it tells kubectl of them."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind: where it lies and how it is called."""

    api_version: str
    plural: str
    name: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """The path of its API group and version."""
        return f"/{'apis' if '/' in self.api_version else 'api'}/{self.api_version}"

    @property
    def group(self) -> str:
        """The API group; empty for the core's."""
        return self.api_version.rpartition("/")[0]

    @property
    def qualified(self) -> str:
        """The plural as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


KINDS = (
    Kind("v1", "namespaces", "Namespace", namespaced=False, short=("ns",)),
    Kind("v1", "nodes", "Node", namespaced=False, short=("no",), subresources=("status",)),
    Kind("v1", "pods", "Pod", short=("po",), subresources=("eviction", "log", "status")),
    Kind("v1", "services", "Service", short=("svc",)),
    Kind("v1", "secrets", "Secret"),
    Kind("v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    Kind("v1", "resourcequotas", "ResourceQuota", short=("quota",)),
    Kind("v1", "events", "Event", short=("ev",)),
    Kind("apps/v1", "deployments", "Deployment", short=("deploy",), subresources=("status",)),
    Kind("apps/v1", "statefulsets", "StatefulSet", short=("sts",), subresources=("status",)),
    Kind("batch/v1", "jobs", "Job", subresources=("status",)),
    Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Kind("rbac.authorization.k8s.io/v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    Kind("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Kind("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",)),
    Kind("kubeflow.org/v1beta1", "experiments", "Experiment", subresources=("status",)),
    Kind("kubeflow.org/v1beta1", "suggestions", "Suggestion", subresources=("status",)),
    Kind("kubeflow.org/v1beta1", "trials", "Trial", subresources=("status",)),
    Kind("argoproj.io/v1alpha1", "workflows", "Workflow", short=("wf",)),
)
BY_PLURAL = {kind.plural: kind for kind in KINDS}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def discovery(path: str) -> dict[str, Any] | None:
    """Return what the server answers at /version, /api, /apis, a group, or a group's version; None elsewhere."""
    versions = [version for version in dict.fromkeys(kind.api_version for kind in KINDS) if "/" in version]
    roots = {kind.root.removeprefix("/"): {"serverRelativeURL": f"/openapi/v3{kind.root}"} for kind in KINDS}
    fixed = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"},
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in versions]},
        "/openapi/v3": {"paths": roots},
        **{f"/apis/{version.partition('/')[0]}": _group(version) for version in versions},
    }
    if path.startswith("/openapi/v3/"):
        return _openapi(path.removeprefix("/openapi/v3"))
    return fixed.get(path) or _resources(path)


def _group(version: str) -> dict[str, Any]:
    named = {"groupVersion": version, "version": version.partition("/")[2]}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": version.partition("/")[0],
        "versions": [named],
        "preferredVersion": named,
    }


def _resources(path: str) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = []
    for kind in KINDS:
        if kind.root == path:
            shared = {"kind": kind.name, "namespaced": kind.namespaced}
            one = {"singularName": kind.name.lower(), "shortNames": list(kind.short), "verbs": VERBS}
            found.append(shared | one | {"name": kind.plural})
            found += [
                shared | {"name": f"{kind.plural}/{each}", "singularName": "", "verbs": ["get", "patch", "update"]}
                for each in kind.subresources
            ]
    if not found:
        return None
    version = path.removeprefix("/apis/").removeprefix("/api/")
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}


def _openapi(root: str) -> dict[str, Any] | None:
    """Return so much of a group's OpenAPI that kubectl lets the server check the fields."""
    paths = {}
    for kind in KINDS:
        if kind.root == root:
            named = {"group": kind.group, "version": kind.api_version.rpartition("/")[2], "kind": kind.name}
            patch = {
                "x-kubernetes-group-version-kind": named,
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "responses": {},
            }
            paths[f"{root}/{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "fake", "version": "1"}, "paths": paths} if paths else None
