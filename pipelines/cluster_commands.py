"""``kondense submit`` and ``kondense schedule``: the pipelines on a cluster."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

PIPELINES = ("compress", "search", "refresh")

Pipeline = Annotated[str, typer.Argument(help=f"{', '.join(PIPELINES)}, or a file that kondense compile made.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the pipeline's run form.")
]
ResourceSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=VALUE",
        help="What the steps get of a cluster: gpus, accelerator, node_selector, tolerations, shared_memory, "
        "cpu_limit, memory_limit, retries, secret, endpoint, ...",
    ),
]
Endpoint = Annotated[
    str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="Address of Kubeflow Pipelines, its API or its UI.")
]
Namespace = Annotated[str, typer.Option(envvar="KONDENSE_NAMESPACE", help="Your profile's, where there are profiles.")]
Token = Annotated[str, typer.Option(envvar="KONDENSE_TOKEN", help="Bearer token, where the platform asks for one.")]
Account = Annotated[str, typer.Option(help="Service account of the runs; the platform's by default.")]


def submit(
    pipeline: Pipeline,
    *,
    param: Parameters = None,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "",
    endpoint: Endpoint = "http://localhost:8080",
    namespace: Namespace = "",
    token: Token = "",
    service_account: Account = "",
) -> None:
    """Start a run of a pipeline on a cluster.

    A pipeline given by its name is compiled with its defaults: other GPUs, nodes or settings are for
    ``kondense compile``, whose files this takes too.
    """
    from pipelines.kondense import reported

    with reported(), package_of(pipeline) as package:
        from pipelines import cluster

        access = cluster.Access(endpoint, namespace, token, service_account)
        for line in cluster.submit(access, package, param or (), name=name):
            print(line)


def schedule(
    pipeline: Pipeline,
    *,
    cron: Annotated[str, typer.Option(help="Six fields, seconds first, UTC: '0 0 3 * * *' is at 3 every night.")],
    param: Parameters = None,
    name: Annotated[str, typer.Option(help="Name of the recurring run; kondense-PIPELINE by default.")] = "",
    paused: Annotated[bool, typer.Option("--paused", help="It stands in the UI, but does not run.")] = False,
    endpoint: Endpoint = "http://localhost:8080",
    namespace: Namespace = "",
    token: Token = "",
    service_account: Account = "",
) -> None:
    """Keep a recurring run of a pipeline on a cluster: made, replaced where it differs, else left alone."""
    from pipelines.kondense import reported

    with reported(), package_of(pipeline) as package:
        from pipelines import cluster
        from pipelines.register import Schedule

        parameters = cluster.read_parameters(package, param or ())
        wanted = Schedule(name or f"kondense-{package.stem}", package.stem, cron, not paused, parameters=parameters)
        access = cluster.Access(endpoint, namespace, token, service_account)
        for line in cluster.schedule(access, package, wanted, source_revision()):
            print(line)


@contextlib.contextmanager
def package_of(pipeline: str) -> Iterator[Path]:
    """Yield the compiled pipeline of that name, or the file itself.

    Raises:
        ValueError: neither.
    """
    if pipeline not in PIPELINES:
        if not Path(pipeline).is_file():
            raise ValueError(
                f"PIPELINE must be {', '.join(PIPELINES)} or a file that kondense compile made, but got {pipeline!r}."
            )
        yield Path(pipeline)
        return
    from components.profiles import DEFAULT_PROFILE
    from pipelines.compile import compile_all
    from pipelines.parameters import resolve

    with tempfile.TemporaryDirectory() as scratch:
        compile_all(resolve(DEFAULT_PROFILE), Path(scratch), only=(pipeline,))
        yield Path(scratch) / f"{pipeline}.yaml"


def source_revision() -> str:
    """Return what names this source in a pipeline's version: the image's revision, else the sources' digest."""
    from pipelines.local.cache import sources_version

    return os.environ.get("KONDENSE_REVISION") or sources_version()
