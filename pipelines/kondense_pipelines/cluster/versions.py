"""What is kept in Kubeflow Pipelines: our pipelines, their versions, and the experiment of their runs."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kondense_pipelines.cluster.naming import version_name, version_title
from kondense_pipelines.cluster.package import Package, read_package

EXPERIMENT = "kondense"  # the KFP experiment of the runs
ABOUT_EXPERIMENT = "Runs of Kondense: networks made small in every way, compared, chosen, published."
PAGE = 100


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
    present = list_all(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id)
    found = named(present, name)
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
    found = named(list_all(client.list_pipelines, "pipelines", **scope), package.name)
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


def list_all(list_page: Callable[..., Any], field: str, **scope: Any) -> list[Any]:
    """Return everything that a list holds: KFP's lists come in pages, and filters compare what the UI shows."""
    found: list[Any] = []
    token = ""
    while True:
        page = list_page(page_token=token, page_size=PAGE, **scope)
        found += getattr(page, field) or ()
        token = page.next_page_token or ""
        if not token:
            return found


def named(present: Sequence[Any], name: str) -> list[Any]:
    """Return the objects of that name; recurring runs have none but the one that is shown."""
    return [each for each in present if name == (getattr(each, "name", None) or each.display_name)]
