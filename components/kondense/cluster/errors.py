"""Errors of the cluster in one line, with the remedy."""

import dataclasses
from typing import Any

from kondense.errors import KondenseError
from kondense.json_text import json_value

# Part of a warning's text -> the remedy, for the pods of every kind.
OF_PODS = (
    ("ull image", "check the name of the image, and that the nodes may pull it"),
    ("ErrImage", "check the name of the image, and that the nodes may pull it"),
)
QUOTA = "exceeded quota"
DENIED = "denied the request"  # by an admission webhook


class ClusterError(KondenseError, OSError):
    """The cluster rejects a request, or cannot be reached; the text gives the remedy."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of custom objects, and what to tell about them.

    Attributes:
        name: such as ``Experiment``; in lower case it is also told in the log.
        group: of the API.
        version: of the API.
        plural: of the objects, in the API's paths.
        product: whose objects they are.
        install: how to install it, in the words after ``must be installed``.
        quota: what to do about an exceeded quota.
        next_steps: part of a warning's text -> the remedy.
    """

    name: str
    group: str
    version: str
    plural: str
    product: str
    install: str
    quota: str
    next_steps: tuple[tuple[str, str], ...]

    @property
    def noun(self) -> str:
        """The name inside a sentence."""
        return self.name.lower() if self.name.istitle() else self.name

    def next_step(self, text: str) -> str:
        """Return the remedy for a warning, as the end of its line; empty if unknown."""
        steps = ((QUOTA, self.quota), *self.next_steps, *OF_PODS)
        return next((f"; {step}" for mark, step in steps if mark in text), "")

    def explain(self, error: Any, namespace: str, action: str) -> str:
        """Return one line for the API's error on an action, with the remedy."""
        text = message(error)
        if error.status == 401:
            return (
                f"the Kubernetes API refuses this step's token (401 {text}): check that its service account still "
                f"exists (kubectl -n {namespace} get serviceaccounts), then run the step again."
            )
        if QUOTA in text:
            return f"quota exceeded in namespace {namespace}: {text}; {self.quota}."
        if error.status in (400, 422) or DENIED in text:
            return f"{self.product} rejects the {self.name}: {text}"
        if error.status == 403:
            return (
                f"this step's service account may not {action} in namespace {namespace}: "
                f"kubectl apply -k manifests/rbac grants it. ({text})"
            )
        if error.status == 404:
            return self._not_found(text, namespace)
        return f"the Kubernetes API answered {error.status} to {action}: {text}"

    def _not_found(self, text: str, namespace: str) -> str:
        if "namespaces" in text:
            return f"namespace {namespace} must exist, but the API says: {text}"
        return (
            f"{self.product} must be installed {self.install}, but the cluster knows no "
            f"{self.group}/{self.version} {self.plural}. ({text})"
        )


def message(error: Any) -> str:
    """Return the API's message for an error, that of a Status object."""
    try:
        return " ".join(str(json_value(error.body, "the answer")["message"]).split())
    except (TypeError, ValueError, KeyError):
        return " ".join(str(error.body or error.reason or "").split())[:300]


def is_final(error: Any) -> bool:
    """Return whether a 500 is a refusal: Katib's webhook answers with a code of its own in some versions."""
    return error.status == 500 and DENIED in message(error)
