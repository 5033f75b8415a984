"""The ``kondense`` command. Large libraries are imported only by the subcommands that need them."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from kondense.errors import InputError, ShortfallError
from kondense.networks.allowed import allowing
from kondense.profiles import DEFAULT_PROFILE, PROFILES
from kondense.version import version_text

from kondense_pipelines.cli import cluster as cluster_commands
from kondense_pipelines.cli import published
from kondense_pipelines.errors import Commands, reported

app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[str | None, typer.Option(help="fashion_mnist, cifar10, cifar100, digits or folder.")]
Source = Annotated[str | None, typer.Option(help="Directory or store of the data set's files; a folder of images.")]
ImageSize = Annotated[int | None, typer.Option(help="Side in pixels to which images are resized.")]
Retries = Annotated[
    int, typer.Option(min=0, max=10, help="Times that a step is started again after it was killed, as for memory.")
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Skip the preflight (kondense check).")]
Network = Annotated[str | None, typer.Option(help="Built-in name, torchvision:NAME or package.module:factory.")]
Profile = Annotated[str, typer.Option(help=f"Amount of training: {' or '.join(PROFILES)}.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all randomness.")]
Candidates = Annotated[str | None, typer.Option(help="Standard candidates, joined by commas, or none; all by default.")]
Recipes = Annotated[
    list[str] | None,
    typer.Option("--recipe", metavar="[NAME=]STEPS", help="A further candidate: prune:l1:0.5 > distill > quantize."),
]
AllowNetwork = Annotated[
    list[str] | None,
    typer.Option(metavar="PACKAGE.MODULE", help="Import networks of this module, or package, that artifacts name."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="STEP.FIELD=VALUE", help="Any parameter of any step.")
]


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print version and source revision, and exit.")] = False,
) -> None:
    """Make trained PyTorch models small and fast, on a laptop and on Kubeflow."""
    if version:
        print(version_text())
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(InputError.exit_code)


@app.command()
def run(
    *,
    dataset: Dataset = None,
    source: Source = None,
    image_size: ImageSize = None,
    network: Network = None,
    profile: Profile = DEFAULT_PROFILE,
    seed: Seed = None,
    settings: Settings = None,
    candidates: Candidates = None,
    recipe: Recipes = None,
    output: Annotated[Path | None, typer.Option(help="Directory of the results; runs/TIME by default.")] = None,
    docker: Annotated[bool, typer.Option("--docker", help="Run the steps as containers.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Reuse no results of earlier runs.")] = False,
    retries: Retries = 1,
    no_check: NoCheck = False,
    allow_network: AllowNetwork = None,
) -> None:
    """Compress a network on this machine: train, prune, quantize, distill, measure, choose, publish.

    A second run reuses the results of unchanged steps. Interrupted at any moment, the same command continues.
    """
    with reported(), allowing(modules=allow_network or ()):
        from kondense_pipelines.graphs.candidates import read_plan
        from kondense_pipelines.graphs.parameters import SEARCH_STEP, TRAIN_JOB, resolve

        for step, what in ((SEARCH_STEP, "no search step"), (TRAIN_JOB, "one node; train.devices sets its processes")):
            if unused := next((text for text in settings or () if text.startswith(f"{step}.")), ""):
                raise InputError(f"--set {unused} is for `kondense compile`: a run on this machine has {what}.")
        configs = resolve(profile, plain(dataset, source, image_size, network, seed), settings or ())
        plan = read_plan(configs, candidates, recipe or ())

        from kondense_pipelines.preflight import check_places, request_for

        request = request_for(configs, plan, settings or (), candidates)
        check_places(request)
        tell(plan.warning)

        from kondense.artifacts.report import read_report, shortcomings
        from rich.console import Console

        from kondense_pipelines.cli.summary import candidate_table
        from kondense_pipelines.local.warm import warm_server
        from kondense_pipelines.local.workspace import run_directory
        from kondense_pipelines.paths import new_run_dir, point_latest
        from kondense_pipelines.terminal import plain as as_it_is

        directory = output or new_run_dir()
        # Standard output is redirected while kfp runs, which prints a lot; this console keeps the original.
        console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)
        with contextlib.ExitStack() as stack:
            stack.enter_context(run_directory(directory))
            # The server imports torch while this process imports kfp.
            log = directory / "logs" / "warm-server.log"
            server = None if docker else stack.enter_context(warm_server(log))
            from kondense_pipelines.local.compress import run_compress
            from kondense_pipelines.preflight import Preflight, before_work, is_installed

            def preflight() -> Preflight:
                return before_work(request, console, server, None if no_cache else directory)

            page = run_compress(
                configs,
                directory,
                console,
                plan=plan,
                server=server,
                docker=docker,
                caching=not no_cache,
                preflight=preflight if is_installed() and not no_check else None,
                retries=retries,
            )
        point_latest(directory)
        table, reason = candidate_table(directory / "report.json")
        console.print(table)
        console.print(reason, highlight=False)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
        lines = shortcomings(read_report(directory))
        for line in lines:
            console.print(f"✗ {as_it_is(line)}", style="red", highlight=False, soft_wrap=True)
    if lines and configs["verdict"].to_dict()["fail"]:
        raise typer.Exit(ShortfallError.exit_code)


@app.command("compile")
def compile_pipelines(
    *,
    dataset: Dataset = None,
    source: Source = None,
    image_size: ImageSize = None,
    network: Network = None,
    profile: Profile = DEFAULT_PROFILE,
    seed: Seed = None,
    settings: Settings = None,
    candidates: Candidates = None,
    recipe: Recipes = None,
    output: Annotated[Path, typer.Option(help="Directory of the files.")] = Path("build"),
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Also write the Pipeline and PipelineVersion objects.")
    ] = False,
    argo: Annotated[
        bool, typer.Option("--argo", help="Also write compress as an Argo Workflow, which needs no KFP.")
    ] = False,
    argo_bucket: Annotated[str, typer.Option(help="Bucket of that Workflow's artifacts.")] = "mlpipeline",
    experiment: Annotated[Path | None, typer.Option(help="The Katib Experiment of the search pipeline.")] = None,
    resource: cluster_commands.ResourceSettings = None,
    no_check: NoCheck = False,
    allow_network: AllowNetwork = None,
) -> None:
    """Compile the pipelines for upload to Kubeflow Pipelines.

    Without --resource the packages request no GPU; with --resource gpus=1, each step that trains gets one.
    """
    with reported(), allowing(modules=allow_network or ()):
        from kondense_pipelines.graphs.candidates import read_plan
        from kondense_pipelines.graphs.parameters import resolve

        configs = resolve(profile, plain(dataset, source, image_size, network, seed), settings or ())
        plan = read_plan(configs, candidates, recipe or ())
        tell(plan.warning)

        from kondense_pipelines.graphs.compile import EXPERIMENT, compile_all
        from kondense_pipelines.graphs.resources import read_resources, with_memory
        from kondense_pipelines.graphs.search import read_template
        from kondense_pipelines.preflight import before_compiling, request_for

        resources = read_resources(resource or ())
        read_template(experiment or EXPERIMENT)  # refused before the preflight
        if not no_check:
            found = before_compiling(request_for(configs, plan, settings or (), candidates))
            configs = found.applied(configs)
            given, resources = resources, with_memory(resources, resource or (), found.memory_bytes)
            if given != resources:
                asked = f"memory_request={resources.memory_request} and memory_limit={resources.memory_limit}"
                print(f"{found.takes}; so the steps get {asked}", file=sys.stderr)
        for path in compile_all(
            configs,
            output,
            experiment=experiment or EXPERIMENT,
            resources=resources,
            kubernetes=kubernetes,
            argo_bucket=argo_bucket if argo else "",
            plan=plan,
            profile=profile,
            settings=settings or (),
        ):
            print(path)


@app.command()
def check(
    *,
    dataset: Dataset = None,
    source: Source = None,
    image_size: ImageSize = None,
    network: Network = None,
    profile: Profile = DEFAULT_PROFILE,
    settings: Settings = None,
    candidates: Candidates = None,
    recipe: Recipes = None,
    allow_network: AllowNetwork = None,
) -> None:
    """Try everything that a run does, on a few random images, and print what is possible.

    `kondense run` and `kondense compile` do the same first. Exit code 2 if the run cannot begin.
    """
    with reported(), allowing(modules=allow_network or ()):
        from kondense_pipelines.graphs.candidates import read_plan
        from kondense_pipelines.graphs.parameters import resolve

        configs = resolve(profile, plain(dataset, source, image_size, network, None), settings or ())
        plan = read_plan(configs, candidates, recipe or ())

        from rich.console import Console

        from kondense_pipelines.preflight import check_places, examined, refuse, request_for

        request = request_for(configs, plan, settings or (), candidates)
        check_places(request)
        tell(plan.warning)
        found = examined(request)
        console = Console(width=None if sys.stdout.isatty() else 140)
        console.print(found.table())
        console.print(f"{found.seconds:.1f} s{f'; {found.takes}' if found.takes else ''}", highlight=False)
        refuse(found)


def plain(
    dataset: str | None, source: str | None, image_size: int | None, network: str | None, seed: int | None
) -> dict[str, Any]:
    """Return the values of the plain options by the run form's parameters."""
    return {
        "dataset": dataset,
        "dataset_source": source,
        "dataset_image_size": image_size,
        "network": network,
        "seed": seed,
    }


@app.command()
def search(
    file: Annotated[Path, typer.Argument(help="A Katib Experiment.")],
    *,
    output: Annotated[Path | None, typer.Option(help="Directory of the results; runs/search-FILE by default.")] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Number of parallel trials; parallelTrialCount by default.")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="IMAGE-PATH=LOCAL-PATH",
            help="A path of the trials' image and the one in its place on this machine; may be repeated.",
        ),
    ] = None,
    command: Annotated[
        str, typer.Option(help="Command of the trials, for one that only their image knows; the arguments stay.")
    ] = "",
    earlier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SEARCH",
            help="An earlier search to start from: its results.json or directory, also minio:// or s3://, or"
            " katib://NAMESPACE or katib://NAMESPACE/EXPERIMENT; may be repeated.",
        ),
    ] = None,
    pick: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Trial to pick, such as 'validation_accuracy >= 0.9, min latency_ms', or 'expected', "
            "the one that a model expects to be the best; by default the best.",
        ),
    ] = "",
) -> None:
    """Run a Katib Experiment on this machine, with trials as processes; the same command continues a stopped one."""
    with reported():
        from kondense.errors import exit_code_of
        from kondense.katib.spec import ExperimentError

        from kondense_pipelines.local.store_watch import watched_store
        from kondense_pipelines.local.workspace import run_directory
        from kondense_pipelines.local_search.changes import read_changes
        from kondense_pipelines.local_search.runner import run as run_experiment
        from kondense_pipelines.paths import RUNS, store_dir

        directory = output or RUNS / f"search-{file.stem}"
        with run_directory(directory), watched_store(store_dir(), notice=warn) as environment:
            options: dict[str, Any] = {
                "changes": read_changes(maps or [], command),
                "pick": pick,
                "earlier": earlier or (),
            }
            try:
                result = run_experiment(file, directory, parallel, overrides=environment, **options)
            except ExperimentError as error:  # one line per broken rule, which `reported` would join
                typer.echo(f"error: {error}", err=True)
                raise SystemExit(exit_code_of(error)) from None
    raise typer.Exit(result.exit_code)


def warn(text: str) -> None:
    """Print a warning."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Print a warning unless it is empty."""
    if text:
        warn(text)


app.command()(cluster_commands.submit)
app.command()(cluster_commands.schedule)
app.command()(published.infer)
app.add_typer(published.models, name="models")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
