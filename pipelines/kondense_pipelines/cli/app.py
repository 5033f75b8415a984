"""The ``kondense`` command. Everything heavy is imported by the command that needs it."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from kondense.errors import InputError
from kondense.networks.allowed import allowing
from kondense.profiles import DEFAULT_PROFILE, PROFILES

from kondense_pipelines.cli import cluster as cluster_commands
from kondense_pipelines.errors import reported

app = typer.Typer(
    help="Make trained PyTorch models small and fast, on a laptop and on Kubeflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="The published models.", no_args_is_help=True)
app.add_typer(models, name="models")
app.command()(cluster_commands.submit)
app.command()(cluster_commands.schedule)

Dataset = Annotated[str | None, typer.Option(help="fashion_mnist, cifar10, cifar100, digits or folder.")]
Network = Annotated[str | None, typer.Option(help="Built-in name, torchvision:NAME or package.module:factory.")]
Profile = Annotated[str, typer.Option(help=f"How much work: {' or '.join(PROFILES)}.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all randomness.")]
Store = Annotated[str, typer.Option(help="Where they are: minio://bucket/prefix, s3://... or a path.")]
Version = Annotated[str, typer.Option(help="An id, the beginning of one, or champion.")]
Candidates = Annotated[
    str | None, typer.Option(help="Standard candidates to make, joined by commas; none for none of them.")
]
Recipes = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe", metavar="[NAME=]STEPS", help="A candidate of your own: prune:l1:0.5 > distill > quantize."
    ),
]
AllowNetwork = Annotated[
    list[str] | None,
    typer.Option(metavar="PACKAGE.MODULE", help="Import networks of this module, or package, that artifacts name."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="STEP.FIELD=VALUE", help="Any field of any step.")]


@app.command()
def run(
    *,
    dataset: Dataset = None,
    network: Network = None,
    profile: Profile = DEFAULT_PROFILE,
    seed: Seed = None,
    settings: Settings = None,
    candidates: Candidates = None,
    recipe: Recipes = None,
    output: Annotated[Path | None, typer.Option(help="Results go here instead of runs/TIME.")] = None,
    docker: Annotated[bool, typer.Option("--docker", help="Run the steps as containers.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Reuse nothing of earlier runs.")] = False,
    allow_network: AllowNetwork = None,
) -> None:
    """Compress a network on this machine: train, prune, quantize, distill, measure, choose, publish.

    A second run reuses what has not changed. Killed at any moment, the same command goes on.
    """
    with reported(), allowing(modules=allow_network or ()):
        from kondense_pipelines.graphs.candidates import read_plan
        from kondense_pipelines.graphs.parameters import SEARCH_STEP, resolve

        if wrong := next((text for text in settings or () if text.startswith(f"{SEARCH_STEP}.")), ""):
            raise InputError(f"--set {wrong} is for `kondense compile`: a run on this machine has no search step.")
        configs = resolve(profile, {"dataset": dataset, "network": network, "seed": seed}, settings or ())
        plan = read_plan(configs, candidates, recipe or ())

        from rich.console import Console

        from kondense_pipelines.cli.summary import candidate_table
        from kondense_pipelines.local.warm import warm_server
        from kondense_pipelines.paths import new_run_dir, point_latest

        directory = output or new_run_dir()
        # kfp prints a lot, so standard output is redirected while it runs: this console keeps the real one.
        console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)
        with contextlib.ExitStack() as stack:
            # The server loads torch while this process loads kfp.
            log = directory / "logs" / "warm-server.log"
            server = None if docker else stack.enter_context(warm_server(log))
            from kondense_pipelines.local.compress import run_compress

            page = run_compress(
                configs, directory, console, plan=plan, server=server, docker=docker, caching=not no_cache
            )
        point_latest(directory)
        table, reason = candidate_table(directory / "report.json")
        console.print(table)
        console.print(reason, highlight=False)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)


@app.command("compile")
def compile_pipelines(
    *,
    dataset: Dataset = None,
    network: Network = None,
    profile: Profile = DEFAULT_PROFILE,
    seed: Seed = None,
    settings: Settings = None,
    candidates: Candidates = None,
    recipe: Recipes = None,
    output: Annotated[Path, typer.Option(help="The files go here.")] = Path("build"),
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Also the Pipeline and PipelineVersion objects.")
    ] = False,
    argo: Annotated[bool, typer.Option("--argo", help="Also compress as an Argo Workflow, without KFP.")] = False,
    argo_bucket: Annotated[str, typer.Option(help="The bucket of that Workflow's artifacts.")] = "mlpipeline",
    experiment: Annotated[Path | None, typer.Option(help="The Katib Experiment of the search pipeline.")] = None,
    resource: cluster_commands.ResourceSettings = None,
) -> None:
    """Compile the pipelines for upload to Kubeflow Pipelines.

    Without --resource the packages ask for no GPU; with --resource gpus=1, steps that train get one each.
    """
    with reported():
        from kondense_pipelines.graphs.candidates import read_plan
        from kondense_pipelines.graphs.parameters import resolve

        configs = resolve(profile, {"dataset": dataset, "network": network, "seed": seed}, settings or ())
        plan = read_plan(configs, candidates, recipe or ())

        from kondense_pipelines.graphs.compile import EXPERIMENT, compile_all
        from kondense_pipelines.graphs.resources import read_resources

        given = read_resources(resource or ())
        for path in compile_all(
            configs,
            output,
            experiment=experiment or EXPERIMENT,
            resources=given,
            kubernetes=kubernetes,
            argo_bucket=argo_bucket if argo else "",
            plan=plan,
            profile=profile,
            settings=settings or (),
        ):
            print(path)


@app.command()
def search(
    file: Annotated[Path, typer.Argument(help="A Katib Experiment.")],
    output: Annotated[Path | None, typer.Option(help="Results go here instead of runs/search-FILE.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Trials at a time, instead of parallelTrialCount.")] = None,
) -> None:
    """Run a Katib Experiment on this machine, trials as processes; the same command continues a stopped one."""
    with reported():
        from kondense_pipelines.local.store import local_store
        from kondense_pipelines.local_search.runner import run as run_experiment
        from kondense_pipelines.paths import RUNS, store_dir

        directory = output or RUNS / f"search-{file.stem}"
        with local_store(store_dir()) as environment:
            result = run_experiment(file, directory, parallel, overrides=environment)
    raise typer.Exit(result.exit_code)


@app.command()
def infer(
    model: Annotated[
        str, typer.Argument(help="An .onnx file, a model's or run's directory, a URI, or a published name.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files of any size.")],
    *,
    top: Annotated[int, typer.Option(help="Labels per image, the likeliest first.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of onnxruntime.")] = 1,
    version: Version = "champion",
    store: Store = "",
) -> None:
    """Label images by an exported model: only its ONNX file is run, without torch."""
    with reported(), contextlib.ExitStack() as stack:
        from kondense_pipelines.cli import infer as inference

        published = "://" not in model and not inference.is_local(model) and "/" not in model
        opened = stack.enter_context(open_models(store)) if published else None
        if "://" in model and model.startswith(("minio://", "s3://")):
            stack.enter_context(open_models(model))  # starts the embedded store where none is configured
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

        rows = published(opened, name)
        if not rows:
            print(f"no models are published in {opened.uri}")
            return
        table = Table("", "model", "version", "created", "accuracy %", "bytes")
        for row in rows:
            record = row.version.record
            accuracy, size = f"{100 * record['test_accuracy']:.2f}", f"{record['bytes']['kz']:,}"
            mark = "champion" if row.champion else ""
            table.add_row(mark, row.model, row.version.id, row.version.created, accuracy, size)
        Console().print(table)


@models.command()
def show(name: str, version: Version = "champion", store: Store = "") -> None:
    """Show what a version is and how it came about, as JSON."""
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
        from kondense_pipelines.cli.models import verify_models

        found = verify_models(opened, name, version)
        for each in found:
            print(f"{each.model} {each.version} {each.problem or f'{each.files} files are whole'}")
        if any(each.problem for each in found):
            raise typer.Exit(1)


@contextlib.contextmanager
def open_models(uri: str) -> Iterator[Any]:
    """Open the store of the published models: ``uri``, or what ``publish.store_uri`` is by default."""
    import os

    from kondense.publish.config import PublishConfig
    from kondense.store.store import open_store

    from kondense_pipelines.local.store import local_store
    from kondense_pipelines.paths import store_dir

    address = uri or PublishConfig().store_uri
    with contextlib.ExitStack() as stack:
        if address.startswith(("minio://", "s3://")):
            os.environ.update(stack.enter_context(local_store(store_dir())))
        yield open_store(address)


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
