"""The pipelines, their versions and the experiment of their runs in Kubeflow Pipelines."""

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
    """A pipeline's version in Kubeflow Pipelines: its display name is ``title``; ``new`` if it was uploaded now."""

    pipeline: str
    version: str
    title: str
    pipeline_id: str
    version_id: str
    new: bool

    def __str__(self) -> str:
        """Return a line that says what was done."""
        return f"version {self.title} of {self.pipeline}: {'uploaded' if self.new else 'it is there'}"


def register(client: Any, compiled: Path | Package, revision: str, namespace: str | None = None) -> Registered:
    """Upload a compiled pipeline, unless this version of it exists.

    Args:
        client: a ``kfp.Client``.
        compiled: the compiled pipeline, or its file.
        revision: of the source it was compiled from.
        namespace: of a profile; None on a platform without profiles.
    """
    package = compiled if isinstance(compiled, Package) else read_package(compiled)
    pipeline_id = _pipeline_id(client, package, namespace)
    name = version_name(package, revision)
    present = list_all(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id)
    if same := named(present, name):
        title = str(same[0].display_name or name)
        return Registered(package.name, name, title, pipeline_id, same[0].pipeline_version_id, new=False)
    title = version_title(package, revision, {each.display_name for each in present})
    # kfp's upload_pipeline_version has no display name.
    made = client.pipeline_uploads.upload_pipeline_version(
        str(package.file),
        name=name,
        display_name=title,
        pipelineid=pipeline_id,
        description=f"{about(package)}\n\nsource revision {revision}, package {package.digest}".strip(),
    )
    return Registered(package.name, name, title, pipeline_id, made.pipeline_version_id, new=True)


def about(package: Package) -> str:
    """Return a package's description: its candidates and its parameters."""
    return str(package.spec["pipelineInfo"].get("description", "")).strip()


def _pipeline_id(client: Any, package: Package, namespace: str | None) -> str:
    """Return the id of the package's pipeline, which is created if it does not exist.

    An existing one keeps its description: the API changes display names and tags only.
    """
    import kfp_server_api

    scope = {"namespace": namespace} if namespace else {}
    existing = named(list_all(client.list_pipelines, "pipelines", **scope), package.name)
    if not existing:
        info = package.spec["pipelineInfo"]
        body = kfp_server_api.V2beta1Pipeline(
            name=package.name,
            display_name=info.get("displayName") or package.name,
            description=about(package).partition("\n")[0],  # the rest is a version's: another one has other candidates
            **scope,
        )
        existing = [client.pipelines.pipeline_service_create_pipeline(pipeline=body)]
    return str(existing[0].pipeline_id)


def experiment_id(client: Any, namespace: str | None) -> str:
    """Return the id of the KFP experiment, which is created if it does not exist."""
    with contextlib.redirect_stdout(io.StringIO()):  # kfp prints a link to the API's address
        made = client.create_experiment(EXPERIMENT, description=ABOUT_EXPERIMENT, namespace=namespace)
    return str(made.experiment_id)


def list_all(list_page: Callable[..., Any], field: str, **scope: Any) -> list[Any]:
    """Return all items of a list: KFP's lists come in pages, and filters compare display names."""
    items: list[Any] = []
    token = ""
    while True:
        page = list_page(page_token=token, page_size=PAGE, **scope)
        items += getattr(page, field) or ()
        token = page.next_page_token or ""
        if not token:
            return items


def named(present: Sequence[Any], name: str) -> list[Any]:
    """Return the objects of that name; recurring runs have a display name only."""
    return [each for each in present if name == (getattr(each, "name", None) or each.display_name)]
