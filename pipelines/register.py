"""Upload the pipelines to Kubeflow Pipelines and make the recurring run: a Job of manifests/pipelines.

Run again, it changes nothing: a version is named by the source revision and the digest of what it runs, and is
uploaded once; the recurring run is compared with the schedule and replaced only where it differs.

KF_PIPELINES_ENDPOINT is the API's address; KF_PIPELINES_SA_TOKEN_PATH, where the platform asks for one, a file with
the account's token. KONDENSE_REVISION is in the image; KONDENSE_NAMESPACE is the profile's, on a platform with
profiles, and KONDENSE_SERVICE_ACCOUNT the account of its runs.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.kubernetes_api import limit_time
from pipelines import access
from pipelines.checks import check_parameters
from pipelines.deploy import job
from pipelines.naming import run_description, version_name, version_title
from pipelines.package import Package, read_package

EXPERIMENT = "kondense"  # the KFP experiment of the runs
ABOUT_EXPERIMENT = "Runs of Kondense: networks made small in every way, compared, chosen, published."
PAGE = 100
CRON_FIELDS = 6


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The recurring run that should be there.

    Attributes:
        name: what the UI shows, and by which it is found again.
        pipeline: the pipeline that runs, in the version that this image uploads.
        cron: six fields, seconds first.
        enabled: False: it is there, but paused.
        max_concurrency: runs at a time, 1 to 10.
        parameters: of the pipeline; the others keep their defaults.
    """

    name: str
    pipeline: str
    cron: str
    enabled: bool = False
    max_concurrency: int = 1
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.cron.split()) != CRON_FIELDS:
            raise ValueError(f"cron must have six fields, seconds first (0 0 3 * * *), but got {self.cron!r}.")
        if not 1 <= self.max_concurrency <= 10:
            raise ValueError(f"max_concurrency must be in [1, 10], but got {self.max_concurrency}.")
        if not isinstance(self.enabled, bool):
            raise ValueError(f"enabled must be true or false, but got {self.enabled!r}.")


class Registered(NamedTuple):
    """A pipeline's version in Kubeflow Pipelines: ``title`` is what pages show, ``new`` that it was uploaded now."""

    pipeline: str
    version: str
    title: str
    pipeline_id: str
    version_id: str
    new: bool

    def __str__(self) -> str:
        """Tell what was done."""
        return f"version {self.title} of {self.pipeline}: {'uploaded' if self.new else 'it is there'}"


def read_schedule(path: Path) -> Schedule:
    """Return the schedule that a file holds (manifests/pipelines/schedule.yaml).

    Raises:
        ValueError: an unknown key, one missing, or a value outside its range.
    """
    content = yaml.safe_load(path.read_text())
    known = [field.name for field in dataclasses.fields(Schedule)]
    if (
        not isinstance(content, dict)
        or not set(content) <= set(known)
        or not {"name", "pipeline", "cron"} <= set(content)
    ):
        raise ValueError(f"{path} must hold name, pipeline and cron, and may hold {', '.join(known[3:])}.")
    return Schedule(**content | {"parameters": content.get("parameters") or {}})


def compile_all(directory: Path, settings: Sequence[str] = (), resources: Sequence[str] = ()) -> list[Path]:
    """Compile every pipeline into ``directory`` and return the packages.

    Args:
        directory: gets them.
        settings: ``step.field=value`` texts, as ``kondense compile --set`` takes them.
        resources: ``name=value`` texts, as ``kondense compile --resource`` takes them.

    Raises:
        ValueError: one of the texts is wrong.
    """
    from components.profiles import DEFAULT_PROFILE
    from pipelines import compile as compiling
    from pipelines.parameters import resolve
    from pipelines.resources import read_resources

    configs = resolve(DEFAULT_PROFILE, {}, settings)
    return compiling.compile_all(configs, directory, resources=read_resources(resources), settings=settings)


def connect(environment: Mapping[str, str]) -> Any:
    """Return a ``kfp.Client`` for the address and token that the environment gives.

    Raises:
        ValueError: no address.
        OSError: the API does not answer there, or is older than what the pipelines need.
    """
    import warnings

    import kfp
    import kfp_server_api
    import urllib3
    from kfp.client import ServiceAccountTokenVolumeCredentials

    host = environment.get("KF_PIPELINES_ENDPOINT", "")
    if not host:
        raise ValueError(
            "KF_PIPELINES_ENDPOINT must be the address of the API, such as http://ml-pipeline.kubeflow:8888."
        )
    token = environment.get("KF_PIPELINES_SA_TOKEN_PATH", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp greets every user with one
        try:
            # First, because kfp's client asks for the same without a time limit when it is made.
            content, _ = access.fetch_health(host, Path(token).read_text().strip() if token else "")
            health = json.loads(content)
            client = kfp.Client(
                host=host,
                namespace=environment.get("KONDENSE_NAMESPACE") or "kubeflow",
                credentials=ServiceAccountTokenVolumeCredentials(token) if token else None,
            )
        except (OSError, ValueError, kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            raise OSError(f"Kubeflow Pipelines (2.14 or newer) must answer at {host}, but: {_reason(error)}") from None
    limit_time(client.pipelines.api_client)  # all of its services share it
    access.check_version(health, host)
    return client


def server_version(client: Any) -> access.VersionNumber:
    """Return the version of the server; kfp's own answer to this leaves it out."""
    answer = client.healthzs.healthz_service_get_healthz(_preload_content=False)
    return access.told_version(json.loads(answer.data)) or access.NEWEST


def register(client: Any, given: Path | Package, revision: str, namespace: str | None = None) -> Registered:
    """Upload a compiled pipeline, unless this very version of it is there.

    Args:
        client: a ``kfp.Client``.
        given: the compiled pipeline, or its file.
        revision: of the source it was compiled from.
        namespace: of a profile; None where there are no profiles.
    """
    package = given if isinstance(given, Package) else read_package(given)
    pipeline_id = _pipeline_id(client, package, namespace)
    name = version_name(package, revision)
    present = _list_all(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id)
    found = _named(present, name)
    if found:
        title = str(found[0].display_name or name)
        return Registered(package.name, name, title, pipeline_id, found[0].pipeline_version_id, new=False)
    title = version_title(package, revision, {each.display_name for each in present})
    # kfp's own upload_pipeline_version knows no display name.
    made = client.pipeline_uploads.upload_pipeline_version(
        str(package.file),
        name=name,
        display_name=title,
        pipelineid=pipeline_id,
        description=f"{about(package)}\n\nsource revision {revision}, package {package.digest}".strip(),
    )
    return Registered(package.name, name, title, pipeline_id, made.pipeline_version_id, new=True)


def about(package: Package) -> str:
    """Return a package's own description: what it makes, and its parameters."""
    return str(package.spec["pipelineInfo"].get("description", "")).strip()


def _pipeline_id(client: Any, package: Package, namespace: str | None) -> str:
    """Return the id of the package's pipeline, which is made where it is not there.

    One that is there keeps its description: the API changes display names and tags only.
    """
    import kfp_server_api

    scope = {"namespace": namespace} if namespace else {}
    found = _named(_list_all(client.list_pipelines, "pipelines", **scope), package.name)
    if not found:
        info = package.spec["pipelineInfo"]
        body = kfp_server_api.V2beta1Pipeline(
            name=package.name,
            display_name=info.get("displayName") or package.name,
            description=about(package).partition("\n")[0],  # the rest is a version's: another one makes other things
            **scope,
        )
        found = [client.pipelines.pipeline_service_create_pipeline(pipeline=body)]
    return str(found[0].pipeline_id)


def experiment_id(client: Any, namespace: str | None) -> str:
    """Return the id of the KFP experiment, which is made where it is not there."""
    with contextlib.redirect_stdout(io.StringIO()):  # kfp prints a link to the API's address
        made = client.create_experiment(EXPERIMENT, description=ABOUT_EXPERIMENT, namespace=namespace)
    return str(made.experiment_id)


def schedule_run(
    client: Any,
    schedule: Schedule,
    source: Registered | Path,
    *,
    description: str = "",
    namespace: str | None = None,
    service_account: str | None = None,
) -> Iterator[str]:
    """Make the recurring run, or replace it if it differs, and say what was done.

    The new one is made before the old ones are deleted: killed in between, the next call finds both and clears up.

    Args:
        client: a ``kfp.Client``.
        schedule: what should be there.
        source: the version that runs, or the file of a package without one.
        description: of the recurring run; it names the package where no version does.
        namespace: of a profile.
        service_account: of the runs; None takes the installation's.
    """
    experiment = experiment_id(client, namespace)
    if isinstance(source, Registered):
        runs = {"pipeline_id": source.pipeline_id, "version_id": source.version_id}
    else:
        runs = {"pipeline_package_path": str(source)}
    arguments = {
        "experiment_id": experiment,
        "description": description,
        "cron_expression": schedule.cron,
        "max_concurrency": schedule.max_concurrency,
        "no_catchup": True,
        "params": dict(schedule.parameters),
        "enabled": schedule.enabled,
        "service_account": service_account,
        **runs,
    }
    listed = _list_all(client.list_recurring_runs, "recurring_runs", experiment_id=experiment)
    present = _named(listed, schedule.name)
    same = [each for each in present if _matches(each, arguments)]
    if same:
        yield f"recurring run {schedule.name}: it is there, {'on' if schedule.enabled else 'paused'}"
    else:
        client.create_recurring_run(job_name=schedule.name, **arguments)
        verb = "replaced" if present else "made"
        yield f"recurring run {schedule.name}: {verb}, {'on' if schedule.enabled else 'paused'}, {schedule.cron}"
    for other in present:
        if other not in same[:1]:
            client.delete_recurring_run(other.recurring_run_id)


def _matches(found: Any, wanted: Mapping[str, Any]) -> bool:
    cron = found.trigger.cron_schedule if found.trigger else None
    reference = found.pipeline_version_reference
    state = {
        "description": found.description or "",
        "cron_expression": cron.cron if cron else None,
        "max_concurrency": int(found.max_concurrency or 0),
        "no_catchup": bool(found.no_catchup),
        "params": dict((found.runtime_config.parameters if found.runtime_config else None) or {}),
        "pipeline_id": reference.pipeline_id if reference else None,
        "version_id": reference.pipeline_version_id if reference else None,
        "enabled": found.status == "ENABLED",
    }
    # The API fills in the account of runs that were made without one.
    if wanted["service_account"]:
        state["service_account"] = found.service_account
    return all(wanted.get(key) == value for key, value in state.items())


def _list_all(list_page: Callable[..., Any], field: str, **scope: Any) -> list[Any]:
    """Return everything that a list holds: KFP's lists come in pages, and filters compare what the UI shows."""
    found: list[Any] = []
    token = ""
    while True:
        page = list_page(page_token=token, page_size=PAGE, **scope)
        found += getattr(page, field) or ()
        token = page.next_page_token or ""
        if not token:
            return found


def _named(present: Sequence[Any], name: str) -> list[Any]:
    """Return the objects of that name; recurring runs have none but the one that is shown."""
    return [each for each in present if name == (getattr(each, "name", None) or each.display_name)]


def _reason(error: Any) -> str:
    """Return what the API said of an error, or why it cannot be reached."""
    try:
        return str(json.loads(error.body)["message"])
    except (AttributeError, TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}" if hasattr(error, "status") else str(error)


def run(
    schedule: Path | None,
    environment: Mapping[str, str],
    settings: Sequence[str] = (),
    resources: Sequence[str] = (),
) -> Iterator[str]:
    """Do the Job's work and say what was done; see ``compile_all`` for the last two."""
    import kfp_server_api

    wanted = read_schedule(schedule) if schedule else None
    namespace = environment.get("KONDENSE_NAMESPACE") or None
    account = environment.get("KONDENSE_SERVICE_ACCOUNT") or None
    revision = environment.get("KONDENSE_REVISION") or "unknown"
    with tempfile.TemporaryDirectory() as scratch:
        packages = _packages(Path(scratch), settings, resources)
        if wanted:
            if wanted.pipeline not in packages:
                raise ValueError(
                    f"pipeline must be one of {', '.join(packages)}, but the schedule names {wanted.pipeline!r}."
                )
            check_parameters(packages[wanted.pipeline], wanted.parameters)
        client = connect(environment)
        version = server_version(client)
        if version < access.TELLS_MORE:
            packages = _packages(Path(scratch), settings, [f"kfp_version={access.written(version)}", *resources])
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
            raise OSError(f"Kubeflow Pipelines refused: {_reason(error)}") from None


def _packages(directory: Path, settings: Sequence[str], resources: Sequence[str]) -> dict[str, Package]:
    """Compile the pipelines; see ``compile_all``."""
    compiled = [read_package(file) for file in compile_all(directory, settings, resources)]
    return {package.name: package for package in compiled}


def main() -> int:
    """Run the Job."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.register", description=__doc__)
    parser.add_argument("--schedule", type=Path, help="a file with the recurring run; without it none is touched")
    parser.add_argument("--set", action="append", default=[], metavar="STEP.FIELD=VALUE", help="any field of any step")
    parser.add_argument(
        "--resource", action="append", default=[], metavar="NAME=VALUE", help="gpus, node_selector, ..."
    )
    options = parser.parse_args()
    return job.run(lambda: run(options.schedule, os.environ, options.set, options.resource))


if __name__ == "__main__":
    sys.exit(main())
