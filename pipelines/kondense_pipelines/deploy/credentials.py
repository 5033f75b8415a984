"""Create the missing Secrets of the object store, with random values: a Job of manifests/minio.

``minio-root`` is for MinIO and the Job that creates buckets. ``mlpipeline-minio-artifact``, the name that Kubeflow
Pipelines expects, is for pipelines and trials; ``kondense_pipelines.deploy.buckets`` creates the MinIO user for it.
"""

import base64
import hashlib
import secrets
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kondense.errors import InputError

from kondense_pipelines.deploy import job

ROOT = "minio-root"
ARTIFACTS = "mlpipeline-minio-artifact"
# The keys of each Secret: the name of the account, and its password.
KEYS = {ROOT: ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"), ARTIFACTS: ("accesskey", "secretkey")}
# SHA-256 of name:password as Kubeflow Pipelines publishes them in its manifests, where anyone can read them.
PUBLISHED = "c10551ff1dbd20cb1cc6ab706e0d79f5b9bc52bc8a13c331dc6720beab5e6cf2"
READERS = ("ml-pipeline", "ml-pipeline-ui")  # they read the Secret only at their start
LABELS = {"app.kubernetes.io/part-of": "kondense"}


def ensure(api: Any, namespace: str) -> Iterator[str]:
    """Create the missing Secrets; yield a line for each Secret.

    Args:
        api: a ``kubernetes.client.ApiClient``.
        namespace: namespace of the object store.

    Raises:
        InputError: an existing Secret lacks one of its keys.
        ApiException: the API refused.
    """
    from kubernetes import client

    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    for name, keys in KEYS.items():
        secret = _read(core, name, namespace)
        if secret is None:
            core.create_namespaced_secret(namespace, _secret(name, keys))
            yield f"secret {name}: created with random values"
            continue
        if missing := [key for key in keys if not (secret.data or {}).get(key)]:
            raise InputError(f"secret {name} must hold the keys {', '.join(keys)}, but lacks {', '.join(missing)}.")
        if not is_published(secret.data, keys):
            yield f"secret {name}: kept"
            continue
        # The object carries its version: if it was changed meanwhile, the API answers 409 and the Job tries again.
        replacement = _secret(name, keys)
        secret.data, secret.string_data = None, replacement["stringData"]
        core.replace_namespaced_secret(name, namespace, secret)
        yield f"secret {name}: the published default was replaced by random values"
        yield from _restart(apps, namespace)


def is_published(data: Mapping[str, str], keys: tuple[str, str]) -> bool:
    """Return whether a Secret's data (base64) are the values that Kubeflow Pipelines publishes."""
    name, password = (base64.b64decode(data[key]) for key in keys)
    return hashlib.sha256(name + b":" + password).hexdigest() == PUBLISHED


def _read(core: Any, name: str, namespace: str) -> Any:
    from kubernetes.client import ApiException

    try:
        return core.read_namespaced_secret(name, namespace)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _secret(name: str, keys: tuple[str, str]) -> dict[str, Any]:
    user, password = keys
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": LABELS},
        # MinIO accepts names of 3 to 20 and passwords of 8 to 40 characters.
        "stringData": {user: "k" + secrets.token_hex(8), password: secrets.token_urlsafe(30)},
    }


def _restart(apps: Any, namespace: str) -> Iterator[str]:
    """Restart the Deployments that have the old credentials, as ``kubectl rollout restart`` does."""
    from kubernetes.client import ApiException

    annotations = {"kubectl.kubernetes.io/restartedAt": datetime.now(UTC).isoformat(timespec="seconds")}
    body = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    for name in READERS:
        try:
            apps.patch_namespaced_deployment(name, namespace, body)
        except ApiException as error:
            if error.status != 404:
                raise
        else:
            yield f"deployment {name}: restarted to read the new values"


def main() -> int:
    """Run the Job."""
    return job.run(lambda: ensure(job.kubernetes_client(), job.namespace()))


if __name__ == "__main__":
    sys.exit(main())
