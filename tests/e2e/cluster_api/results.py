"""What a played run leaves in the object store: a page with the report's title, a whole model, a published version."""

import uuid
from pathlib import Path

from kondense.publish.versions import FORMAT_VERSION, model_prefix, version_prefix, write_champion
from kondense.store.open import open_store
from kondense.store.store import Store

VERSION = "0123456789ab"  # of every publication: the same data give the same model


def page(title: str) -> bytes:
    """Return a page that has a report's title and nothing else of it."""
    return f"<!doctype html><html><head><title>{title}: pruned</title></head></html>".encode()


def leave_report(uri: str, title: str, model_dir: Path, *, kfp: bool, missing: bool) -> None:
    """Put a report and the chosen model below a URI, as Kubeflow Pipelines or an Argo Workflow lays them out.

    Args:
        uri: of the run's artifacts.
        title: of the report.
        model_dir: a Model artifact.
        kfp: whether an identifier of the execution stands between step and artifact, and a page is a file.
        missing: leave the report out.
    """
    store = open_store(uri)
    step = f"report/{uuid.uuid4()}" if kfp else "report"
    if not missing:
        store.write(f"{step}/html" if kfp else f"{step}/report/report.html", page(title))
    for path in model_dir.rglob("*"):
        if path.is_file():
            store.upload_file(f"{step}/chosen/{path.relative_to(model_dir).as_posix()}", path)


def champion_of(store: Store, name: str) -> bool:
    """Tell whether a champion is published."""
    return store.exists(f"{model_prefix(name)}/champion.json")


def publish(uri: str, name: str, version: str = VERSION) -> None:
    """Publish a version that is none, with the pointer to it."""
    store = open_store(uri)
    store.write(f"{version_prefix(name, version)}/manifest.json", b"{}")
    champion = {
        "format_version": FORMAT_VERSION,
        "version": version,
        "previous": "",
        "promoted": "2026-01-01T00:00:00+00:00",
        "reason": "played",
        "test_digest": "00",
        "reference_accuracy": 0.9,
    }
    write_champion(store, name, champion)  # type: ignore[arg-type]  # it has the keys of a Champion
