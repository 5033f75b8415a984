"""What the cluster says when it refuses, in one clear line with the next step."""

import json
from typing import Any

from kondense.errors import KondenseError

# What a warning's text holds -> the next step.
NEXT_STEPS = (
    ("exceeded quota", "raise the ResourceQuota of the namespace, or lower parallel_trials, gpus, cpu or memory"),
    (
        "Insufficient",
        "add nodes, lower gpus, cpu or memory, or set node_selector and tolerations to nodes that are free",
    ),
    ("untolerated taint", "set tolerations to the taints of the GPU nodes"),
    (
        "didn't match Pod's node affinity",
        "set node_selector to labels that nodes have: kubectl get nodes --show-labels",
    ),
    ('secret "', "make the Secret with the object store's accesskey and secretkey in the trials' namespace"),
    ("ull image", "check the name of the image, and that the nodes may pull it"),
    ("ErrImage", "check the name of the image, and that the nodes may pull it"),
    ("suggestion", "look at the suggestion's pod: kubectl get pods -l katib.kubeflow.org/deployment"),
)


class ClusterError(KondenseError, OSError):
    """The cluster refused, or cannot be reached; the text says what to do."""


class SearchError(ClusterError):
    """The search ended without a trial to hand on; the text says why and what to do."""


def explain(error: Any, namespace: str, action: str) -> str:
    """Return one line for what the API answered to an action, with the next step."""
    text = message(error)
    if error.status == 401:
        return (
            f"the Kubernetes API refuses this step's token (401 {text}): look whether its service account is still "
            f"there (kubectl -n {namespace} get serviceaccounts), then run the step again."
        )
    if "exceeded quota" in text:
        return f"quota exceeded in namespace {namespace}: {text}; {NEXT_STEPS[0][1]}."
    if error.status == 403:
        return (
            f"this step's service account may not {action} in namespace {namespace}: "
            f"kubectl apply -k manifests/rbac gives it what it needs. ({text})"
        )
    if error.status == 404:
        return _not_found(text, namespace)
    if error.status in (400, 422) or is_final(error):
        return f"Katib refuses the Experiment: {text}"
    return f"the Kubernetes API answered {error.status} to {action}: {text}"


def _not_found(text: str, namespace: str) -> str:
    if "namespaces" in text:
        return f"namespace {namespace} must exist, but the API says: {text}"
    return (
        "Katib must be installed (0.19: kubectl apply -k manifests/kubeflow/katib), but the cluster knows no "
        f"kubeflow.org/v1beta1 experiments. ({text})"
    )


def message(error: Any) -> str:
    """Return the API's own words for an error: the ``message`` of a Status object."""
    try:
        return " ".join(str(json.loads(error.body)["message"]).split())
    except (TypeError, ValueError, KeyError):
        return " ".join(str(error.body or error.reason or "").split())[:300]


def is_final(error: Any) -> bool:
    """Tell whether a 500 is an answer: Katib's webhook denies with its own code in some versions."""
    return error.status == 500 and "denied the request" in message(error)


def next_step(text: str) -> str:
    """Return what to do about a warning, as the end of its line; nothing when it is unknown."""
    return next((f"; {step}" for mark, step in NEXT_STEPS if mark in text), "")
