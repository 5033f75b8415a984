"""``kondense submit`` and ``kondense schedule``: the pipelines on a cluster."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from kondense.errors import InputError
from kondense.scratch import scratch_directory

PIPELINES = ("compress", "search", "refresh")

Pipeline = Annotated[str, typer.Argument(help=f"{', '.join(PIPELINES)}, or a file of kondense compile.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the run form.")
]
ResourceSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=VALUE",
        help="Resources of the steps on a cluster: gpus, accelerator, node_selector, tolerations, shared_memory, "
        "cpu_limit, memory_limit, retries, secret, endpoint, ...; kfp_version: version of the server.",
    ),
]
Endpoint = Annotated[
    str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="Address of Kubeflow Pipelines, its API or its UI.")
]
Namespace = Annotated[str, typer.Option(envvar="KONDENSE_NAMESPACE", help="Namespace, on a platform with profiles.")]
Token = Annotated[str, typer.Option(envvar="KONDENSE_TOKEN", help="Bearer token, if the platform requires one.")]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Run every step again, also those of nested graphs. KFP cannot do so with a registered version, so such a "
        "run shows its package instead of a version.",
    ),
]
Account = Annotated[str, typer.Option(help="Service account of the runs; the platform's by default.")]


def submit(
    pipeline: Pipeline,
    *,
    param: Parameters = None,
    name: Annotated[str, typer.Option(help="Name of the run; data set, network and time by default.")] = "",
    no_cache: NoCache = False,
    endpoint: Endpoint = "http://localhost:8080",
    namespace: Namespace = "",
    token: Token = "",
    service_account: Account = "",
) -> None:
    """Start a run of a pipeline on a cluster; upload its version if it is missing there.

    A pipeline given by name is compiled with its defaults, for the version of the server. For other GPUs, nodes or
    settings, pass a file of `kondense compile`. Parameters are checked before anything starts.
    """
    from kondense_pipelines.errors import reported

    with reported(), source_of(pipeline, param or ()) as source:
        from kondense_pipelines.cluster.access import Access
        from kondense_pipelines.cluster.client import submit as start

        access = Access(endpoint, namespace, token, service_account)
        for line in start(
            access, source.package, param or (), name=name, caching=not no_cache, recompile=source.recompile
        ):
            print(line)


def schedule(
    pipeline: Pipeline,
    *,
    cron: Annotated[str, typer.Option(help="Six fields, seconds first, UTC: '0 0 3 * * *' is every night at 3.")],
    param: Parameters = None,
    name: Annotated[str, typer.Option(help="Name of the recurring run; kondense-PIPELINE by default.")] = "",
    paused: Annotated[bool, typer.Option("--paused", help="Create it disabled.")] = False,
    no_cache: NoCache = False,
    endpoint: Endpoint = "http://localhost:8080",
    namespace: Namespace = "",
    token: Token = "",
    service_account: Account = "",
) -> None:
    """Ensure a recurring run of a pipeline on a cluster: created, or replaced if it differs."""
    from kondense_pipelines.errors import reported

    with reported(), source_of(pipeline, param or ()) as source:
        from kondense_pipelines.cluster import client as cluster
        from kondense_pipelines.cluster.access import Access
        from kondense_pipelines.cluster.naming import source_revision
        from kondense_pipelines.cluster.package import read_package
        from kondense_pipelines.cluster.recurring import Schedule

        parameters = cluster.read_parameters(source.package, param or ())
        runs = read_package(source.package).name
        recurring = Schedule(name or f"kondense-{runs}", runs, cron, not paused, parameters=parameters)
        access = Access(endpoint, namespace, token, service_account)
        for line in cluster.schedule(
            access, source.package, recurring, source_revision(), caching=not no_cache, recompile=source.recompile
        ):
            print(line)


class Source(NamedTuple):
    """A compiled pipeline, and a function that compiles it for another version of the server; None for a file."""

    package: Path
    recompile: Callable[[str], Path] | None = None


@contextlib.contextmanager
def source_of(pipeline: str, parameters: Iterable[str]) -> Iterator[Source]:
    """Yield the compiled pipeline of that name, or the file itself.

    Args:
        pipeline: a name or a file.
        parameters: ``name=value`` texts; the steps may import the network that they name.

    Raises:
        InputError: it is neither.
    """
    if pipeline not in PIPELINES:
        if not Path(pipeline).is_file():
            raise InputError(
                f"PIPELINE must be {', '.join(PIPELINES)} or a file of kondense compile, but got {pipeline!r}."
            )
        yield Source(Path(pipeline))
        return
    from kondense.profiles import DEFAULT_PROFILE

    from kondense_pipelines.graphs.compile import compile_all
    from kondense_pipelines.graphs.parameters import resolve
    from kondense_pipelines.graphs.resources import Resources

    networks = [text.removeprefix("network=") for text in parameters if text.startswith("network=")]
    with scratch_directory("cluster") as scratch:

        def compiled(resources: Resources) -> Path:
            resources = resources.allowing(networks)
            configs = resolve(DEFAULT_PROFILE)
            return compile_all(configs, scratch, only=(pipeline,), resources=resources)[0]

        yield Source(compiled(Resources()), lambda version: compiled(Resources(kfp_version=version)))
