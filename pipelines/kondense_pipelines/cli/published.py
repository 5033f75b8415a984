"""The commands of exported and published models: ``kondense infer`` and ``kondense models``."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from kondense_pipelines.errors import reported

models = typer.Typer(help="The published models.", no_args_is_help=True)

Store = Annotated[str, typer.Option(help="Store of the models: minio://bucket/prefix, s3://bucket/prefix or a path.")]
Version = Annotated[str, typer.Option(help="Version: an id, the beginning of one, or champion.")]


def infer(
    model: Annotated[
        str, typer.Argument(help="An .onnx file, the directory of a model or run, a URI, or a published name.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files of any size.")],
    *,
    top: Annotated[int, typer.Option(help="Number of labels per image, the most probable first.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of onnxruntime.")] = 1,
    version: Version = "champion",
    store: Store = "",
) -> None:
    """Label images with an exported model: its ONNX file, without torch."""
    with reported(), contextlib.ExitStack() as stack:
        from kondense_pipelines.cli import infer as inference

        published = "/" not in model and not inference.is_local(model)
        opened = stack.enter_context(open_models(store)) if published else None
        if model.startswith(("minio://", "s3://")):
            stack.enter_context(open_models(model))  # starts the embedded store if none is configured
        file, digest = stack.enter_context(inference.exported_model(model, opened, version))
        answers = inference.infer(file, images, top=top, threads=threads, digest=digest)
        print(inference.as_json(answers) if as_json else "\n".join(inference.lines(answers)))


@models.command("list")
def list_models(name: Annotated[str, typer.Argument(help="Only this model.")] = "", store: Store = "") -> None:
    """List the published versions."""
    with reported(), open_models(store) as opened:
        from rich.console import Console
        from rich.table import Table

        from kondense_pipelines.cli.models import list_models as published
        from kondense_pipelines.terminal import plain

        rows = published(opened, name)
        if not rows:
            print(f"{opened.uri} has no published models")
            return
        table = Table("", "model", "version", "created", "accuracy %", "bytes")
        for row in rows:
            record = row.version.record
            accuracy, size = f"{100 * record['test_accuracy']:.2f}", f"{record['bytes']['kz']:,}"
            mark = "champion" if row.champion else ""
            texts = (row.model, row.version.id, row.version.created)
            table.add_row(mark, *map(plain, texts), accuracy, size)
        Console().print(table)


@models.command()
def show(name: str, version: Version = "champion", store: Store = "") -> None:
    """Show a version with its lineage as JSON."""
    with reported(), open_models(store) as opened:
        import json

        from kondense_pipelines.cli.models import show_model

        print(json.dumps(show_model(opened, name, version), indent=2))


@models.command()
def pull(name: str, directory: Path, version: Version = "champion", store: Store = "") -> None:
    """Write a version to DIRECTORY, verified; its weights are rebuilt from weights.kz."""
    with reported(), open_models(store) as opened:
        from kondense_pipelines.cli.models import pull_model

        pulled = pull_model(opened, name, directory, version)
        files = f"{len(pulled.fetched)} of {len(pulled.version.files)} files, {pulled.fetched_bytes:,} bytes"
        print(f"{name} {pulled.version.id} is in {directory} (fetched {files})")


@models.command()
def verify(name: Annotated[str, typer.Argument()] = "", version: Version = "", store: Store = "") -> None:
    """Check every digest of the published models."""
    with reported(), open_models(store) as opened:
        from kondense.printable import printable

        from kondense_pipelines.cli.models import verify_models

        results = verify_models(opened, name, version)
        for result in results:
            print(printable(f"{result.model} {result.version} {result.problem or f'{result.files} files are intact'}"))
        if any(result.problem for result in results):
            raise typer.Exit(1)


@contextlib.contextmanager
def open_models(uri: str) -> Iterator[Any]:
    """Open the store of the published models: ``uri``, or the default of ``publish.store_uri``."""
    import os

    from kondense.publish.config import PublishConfig
    from kondense.store.open import open_store

    from kondense_pipelines.local.store import local_store
    from kondense_pipelines.paths import store_dir

    address = uri or PublishConfig().store_uri
    with contextlib.ExitStack() as stack:
        if address.startswith(("minio://", "s3://")):
            os.environ.update(stack.enter_context(local_store(store_dir())))
        yield open_store(address)
