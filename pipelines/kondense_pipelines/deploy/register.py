"""Upload the pipelines to Kubeflow Pipelines and create the recurring run: a Job of manifests/pipelines.

A second run changes nothing: a version is named by the source revision and the digest of its package, and is uploaded
once; the recurring run is compared with the schedule and replaced only if it differs.

KF_PIPELINES_ENDPOINT is the API's address; KF_PIPELINES_SA_TOKEN_PATH, if the platform requires one, a file with the
account's token. KONDENSE_REVISION is in the image; KONDENSE_NAMESPACE is the profile's, on a platform with profiles,
and KONDENSE_SERVICE_ACCOUNT the account of its runs.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense.errors import InputError
from kondense.json_text import json_value
from kondense.kubernetes_api import limit_size, limit_time
from kondense.scratch import scratch_directory

from kondense_pipelines.cluster import access
from kondense_pipelines.cluster.checks import check_parameters
from kondense_pipelines.cluster.naming import run_description
from kondense_pipelines.cluster.package import Package, read_package
from kondense_pipelines.cluster.recurring import read_schedule, schedule_run
from kondense_pipelines.cluster.versions import register
from kondense_pipelines.deploy import job
from kondense_pipelines.graphs.resources import TELLS_MORE


def compile_all(directory: Path, settings: Sequence[str] = (), resources: Sequence[str] = ()) -> list[Path]:
    """Compile every pipeline into ``directory`` and return the packages.

    Args:
        directory: directory of the packages.
        settings: ``step.field=value`` texts, as ``kondense compile --set`` takes them.
        resources: ``name=value`` texts, as ``kondense compile --resource`` takes them.

    Raises:
        InputError: one of the texts is wrong.
    """
    from kondense.profiles import DEFAULT_PROFILE

    from kondense_pipelines.graphs import compile as compiling
    from kondense_pipelines.graphs.parameters import resolve
    from kondense_pipelines.graphs.resources import read_resources

    configs = resolve(DEFAULT_PROFILE, {}, settings)
    return compiling.compile_all(configs, directory, resources=read_resources(resources), settings=settings)


def connect(environment: Mapping[str, str]) -> Any:
    """Return a ``kfp.Client`` for the address and token of the environment.

    Raises:
        InputError: there is no address.
        AccessError: the API does not answer, or is older than the pipelines require.
    """
    import warnings

    import kfp
    import kfp_server_api
    import urllib3
    from kfp.client import ServiceAccountTokenVolumeCredentials

    host = environment.get("KF_PIPELINES_ENDPOINT", "")
    if not host:
        raise InputError(
            "KF_PIPELINES_ENDPOINT must be the address of the API, such as http://ml-pipeline.kubeflow:8888."
        )
    token = environment.get("KF_PIPELINES_SA_TOKEN_PATH", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp warns at every start
        try:
            # First, because the constructor of kfp's client makes the same request without a time limit.
            content, _ = access.fetch_health(host, Path(token).read_text().strip() if token else "")
            health = json_value(content, "the answer")
            client = kfp.Client(
                host=host,
                namespace=environment.get("KONDENSE_NAMESPACE") or "kubeflow",
                credentials=ServiceAccountTokenVolumeCredentials(token) if token else None,
            )
        except (OSError, ValueError, kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            raise access.AccessError(
                f"Kubeflow Pipelines (2.14 or newer) must answer at {host}, but: {_reason(error)}"
            ) from None
    limit_size(limit_time(client.pipelines.api_client))  # all of its services share it
    access.check_version(health, host)
    return client


def server_version(client: Any) -> access.VersionNumber:
    """Return the version of the server, which kfp's parsed answer omits."""
    answer = client.healthzs.healthz_service_get_healthz(_preload_content=False)
    return access.stated_version(json_value(answer.data, "the answer")) or access.NEWEST


def _reason(error: Any) -> str:
    """Return the API's message about an error, or why it cannot be reached."""
    try:
        return str(json_value(error.body, "the answer")["message"])
    except (AttributeError, TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}" if hasattr(error, "status") else str(error)


def run(
    schedule: Path | None,
    environment: Mapping[str, str],
    settings: Sequence[str] = (),
    resources: Sequence[str] = (),
) -> Iterator[str]:
    """Do the Job's work and yield lines of the actions; see ``compile_all`` for the last two arguments."""
    import kfp_server_api

    wanted = read_schedule(schedule) if schedule else None
    namespace = environment.get("KONDENSE_NAMESPACE") or None
    account = environment.get("KONDENSE_SERVICE_ACCOUNT") or None
    revision = environment.get("KONDENSE_REVISION") or "unknown"
    with scratch_directory("register") as scratch:
        packages = _packages(scratch, settings, resources)
        if wanted:
            if wanted.pipeline not in packages:
                raise InputError(
                    f"pipeline must be one of {', '.join(packages)}, but the schedule names {wanted.pipeline!r}."
                )
            check_parameters(packages[wanted.pipeline], wanted.parameters)
        client = connect(environment)
        version = server_version(client)
        if version < TELLS_MORE:
            packages = _packages(scratch, settings, [f"kfp_version={access.written(version)}", *resources])
        try:
            for package in packages.values():
                access.check_package(package, version)
                registered = register(client, package, revision, namespace)
                yield str(registered)
                if wanted and wanted.pipeline == registered.pipeline:
                    yield from schedule_run(
                        client,
                        wanted,
                        registered,
                        description=run_description(package, wanted.parameters, revision),
                        namespace=namespace,
                        service_account=account,
                    )
        except kfp_server_api.ApiException as error:
            raise access.AccessError(f"Kubeflow Pipelines refused: {_reason(error)}") from None


def _packages(directory: Path, settings: Sequence[str], resources: Sequence[str]) -> dict[str, Package]:
    """Compile the pipelines; see ``compile_all``."""
    compiled = [read_package(file) for file in compile_all(directory, settings, resources)]
    return {package.name: package for package in compiled}


def main() -> int:
    """Run the Job."""
    parser = argparse.ArgumentParser(prog="python -m kondense_pipelines.deploy.register", description=__doc__)
    parser.add_argument("--schedule", type=Path, help="a file with the recurring run; without it none is changed")
    parser.add_argument("--set", action="append", default=[], metavar="STEP.FIELD=VALUE", help="any field of any step")
    parser.add_argument(
        "--resource", action="append", default=[], metavar="NAME=VALUE", help="gpus, node_selector, ..."
    )
    options = parser.parse_args()
    return job.run(lambda: run(options.schedule, os.environ, options.set, options.resource))


if __name__ == "__main__":
    sys.exit(main())
