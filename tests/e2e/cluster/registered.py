"""What is registered in Kubeflow Pipelines: our pipelines' versions, our recurring runs."""

import contextlib
import io
from typing import Any

from kondense_pipelines.cluster.recurring import read_schedule
from kondense_pipelines.cluster.versions import EXPERIMENT, PAGE

from tests.e2e.cluster.options import MANIFESTS
from tests.e2e.cluster.session import Session

PIPELINES = ("compress", "search", "refresh")
SCHEDULE = MANIFESTS / "pipelines" / "schedule.yaml"


def versions(session: Session) -> dict[str, set[str]]:
    """Return the names of the versions of each of our pipelines."""
    client = session.kfp().client
    found: dict[str, set[str]] = {}
    for name in PIPELINES:
        identifier = pipeline_id(client, name)
        pages = (
            all_pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=identifier) if identifier else []
        )
        found[name] = {each.name for each in pages}
    return found


def pipeline_id(client: Any, name: str) -> str:
    """Return a pipeline's id, empty when it is not there; kfp's own get_pipeline_id compares what the UI shows."""
    found = [each for each in all_pages(client.list_pipelines, "pipelines") if each.name == name]
    return str(found[0].pipeline_id) if found else ""


def recurring_runs(session: Session) -> list[Any]:
    """Return the recurring runs of our KFP experiment."""
    connected = session.kfp()
    with contextlib.redirect_stdout(io.StringIO()):  # kfp prints a link; the experiment may be there already
        experiment = connected.client.create_experiment(EXPERIMENT, namespace=connected.namespace)
    return all_pages(connected.client.list_recurring_runs, "recurring_runs", experiment_id=experiment.experiment_id)


def all_pages(list_page: Any, field: str, **scope: Any) -> list[Any]:
    """Return everything that a list of Kubeflow Pipelines holds."""
    found: list[Any] = []
    token = ""
    while True:
        page = list_page(page_token=token, page_size=PAGE, **scope)
        found += getattr(page, field) or []
        token = page.next_page_token or ""
        if not token:
            return found


def remove_versions(session: Session, pipeline: str, *, keep: set[str]) -> None:
    """Delete the versions of a pipeline but those to keep, and the pipeline when it has none left."""
    client = session.kfp().client
    identifier = pipeline_id(client, pipeline)
    pages = all_pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=identifier) if identifier else []
    for version in pages:
        if version.name not in keep:
            client.delete_pipeline_version(identifier, version.pipeline_version_id)
    if identifier and not keep:
        client.delete_pipeline(identifier)


def forget(session: Session) -> None:
    """Delete what the registering Job has made: the recurring run, the pipelines and their versions."""
    name = read_schedule(SCHEDULE).name
    for each in recurring_runs(session):
        if each.display_name == name:
            session.kfp().client.delete_recurring_run(each.recurring_run_id)
    for pipeline in PIPELINES:
        remove_versions(session, pipeline, keep=set())
