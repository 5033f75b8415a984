"""Errors of the cluster in one line, with the remedy."""

from typing import Any

from kondense.errors import KondenseError
from kondense.json_text import json_value

# Part of a warning's text -> the remedy.
NEXT_STEPS = (
    ("exceeded quota", "raise the ResourceQuota of the namespace, or lower parallel_trials, gpus, cpu or memory"),
    (
        "Insufficient",
        "add nodes, lower gpus, cpu or memory, or set node_selector and tolerations to free nodes",
    ),
    ("untolerated taint", "set tolerations to the taints of the GPU nodes"),
    (
        "didn't match Pod's node affinity",
        "set node_selector to labels of existing nodes: kubectl get nodes --show-labels",
    ),
    ('secret "', "create the Secret with the object store's accesskey and secretkey in the trials' namespace"),
    ("ull image", "check the name of the image, and that the nodes may pull it"),
    ("ErrImage", "check the name of the image, and that the nodes may pull it"),
    ("suggestion", "inspect the suggestion's pod: kubectl get pods -l katib.kubeflow.org/deployment"),
)


class ClusterError(KondenseError, OSError):
    """The cluster rejects a request, or cannot be reached; the text gives the remedy."""


class SearchError(ClusterError):
    """The search ended without a result; the text gives the reason and the remedy."""


def explain(error: Any, namespace: str, action: str) -> str:
    """Return one line for the API's error on an action, with the remedy."""
    text = message(error)
    if error.status == 401:
        return (
            f"the Kubernetes API refuses this step's token (401 {text}): check that its service account still "
            f"exists (kubectl -n {namespace} get serviceaccounts), then run the step again."
        )
    if "exceeded quota" in text:
        return f"quota exceeded in namespace {namespace}: {text}; {NEXT_STEPS[0][1]}."
    if error.status == 403:
        return (
            f"this step's service account may not {action} in namespace {namespace}: "
            f"kubectl apply -k manifests/rbac grants it. ({text})"
        )
    if error.status == 404:
        return _not_found(text, namespace)
    if error.status in (400, 422) or is_final(error):
        return f"Katib rejects the Experiment: {text}"
    return f"the Kubernetes API answered {error.status} to {action}: {text}"


def _not_found(text: str, namespace: str) -> str:
    if "namespaces" in text:
        return f"namespace {namespace} must exist, but the API says: {text}"
    return (
        "Katib must be installed (0.19: kubectl apply -k manifests/kubeflow/katib), but the cluster knows no "
        f"kubeflow.org/v1beta1 experiments. ({text})"
    )


def message(error: Any) -> str:
    """Return the API's message for an error, that of a Status object."""
    try:
        return " ".join(str(json_value(error.body, "the answer")["message"]).split())
    except (TypeError, ValueError, KeyError):
        return " ".join(str(error.body or error.reason or "").split())[:300]


def is_final(error: Any) -> bool:
    """Return whether a 500 is a refusal: Katib's webhook answers with a code of its own in some versions."""
    return error.status == 500 and "denied the request" in message(error)


def next_step(text: str) -> str:
    """Return the remedy for a warning, as the end of its line; empty if unknown."""
    return next((f"; {step}" for mark, step in NEXT_STEPS if mark in text), "")
