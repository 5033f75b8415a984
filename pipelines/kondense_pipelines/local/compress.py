"""Run the compress pipeline on this machine and copy its results to the run's directory."""

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kondense.artifacts.report import PAGE, REPORT
from kondense.config import Config
from kondense.files import copy_directory, new_directory, write_file, write_json
from kondense.images import STAGE_IMAGE
from kondense.networks.allowed import VARIABLE, allowing
from kondense.preflight.request import NETWORK
from kondense.profiles import Value
from kondense.removal import remove_directory
from kondense.store.open import open_store
from rich.console import Console

from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.compress import TRAIN_TEACHER, make_compress, task_names
from kondense_pipelines.graphs.parameters import NETWORK_FIELDS, PROFILE, split
from kondense_pipelines.local.cache import sources_version
from kondense_pipelines.local.docker import image_id
from kondense_pipelines.local.interrupted import run_ended
from kondense_pipelines.local.progress import RunProgress
from kondense_pipelines.local.run import RETRIES, LocalSettings, run_pipeline
from kondense_pipelines.local.steps import StepResult
from kondense_pipelines.local.store_watch import settled, watched_store
from kondense_pipelines.local.warm import WarmServer
from kondense_pipelines.paths import cache_dir, store_dir
from kondense_pipelines.preflight import Preflight
from kondense_pipelines.terminal import plain

TIMINGS = "timings.json"
PATHS = ("dataset_source", "network_import_uri")  # parameters that may be local paths
CHECKPOINTS = "minio://kondense/checkpoints"
SYSTEM_DATA = Path("/usr/share/datasets")  # Debian's data packages, such as dataset-fashion-mnist


def run_compress(
    configs: Mapping[str, Config],
    output_dir: Path,
    console: Console,
    *,
    plan: Plan | None = None,
    server: WarmServer | None = None,
    docker: bool = False,
    caching: bool = True,
    preflight: Callable[[], Preflight] | None = None,
    retries: int = RETRIES,
) -> Path:
    """Run the pipeline, write its results to ``output_dir`` and return the path of report.html.

    The results are ``report.json``, ``report.html``, ``chosen/`` and ``candidates/<name>/`` (Model artifacts),
    ``logs/<step>.log`` and ``timings.json``; each appears whole or not at all.

    Args:
        configs: the Config of every step.
        output_dir: the run's directory, created if necessary.
        console: shows the progress.
        plan: the candidates; None for the standard ones.
        server: forks the steps' processes; without it each step starts an interpreter.
        docker: run the steps as containers of the stage image.
        caching: False reuses neither finished steps nor checkpoints of earlier runs.
        preflight: called once the stores respond; its defaults that were lowered to what is possible apply.
        retries: times that a step is started again after it was killed.

    Raises:
        StepError: a step that all candidates need failed. The same call continues from there, unless caching is off.
        InputError: there is no Docker Engine, or it lacks the image.
        StoreError: the object store does not start, cannot be reached, or refuses the credentials.
    """
    began = time.monotonic()

    def notice(text: str) -> None:
        console.print(f"[yellow]![/] {plain(text)}", highlight=False, soft_wrap=True)

    with watched_store(store_dir(), notice=notice) as store:
        embedded = not os.environ.get("MINIO_ENDPOINT")
        os.environ.update(store)
        check_stores(CHECKPOINTS, str(configs["publish"].to_dict()["store_uri"]))
        found = preflight() if preflight else Preflight((), 0.0)
        configs = found.applied(configs)
        with allowing(networks=[str(configs[step].to_dict()[field]) for step, field in NETWORK_FIELDS]):
            settings, arguments, pipeline = _prepare(
                configs, output_dir, store, plan=plan or Plan(), docker=docker, caching=caching
            )
            settings = dataclasses.replace(
                settings, retries=retries, store=partial(settled, store_dir()) if embedded else settings.store
            )
            with RunProgress(console, len(settings.order)) as progress:
                results = run_pipeline(pipeline, arguments, settings, progress, server)
    page = collect(results, output_dir)
    write_json(output_dir / TIMINGS, timings(results, time.monotonic() - began, found))
    run_ended(output_dir)
    return page


def _prepare(
    configs: Mapping[str, Config],
    output_dir: Path,
    store: Mapping[str, str],
    *,
    plan: Plan,
    docker: bool,
    caching: bool,
) -> tuple[LocalSettings, dict[str, Any], Any]:
    arguments, bound = split(configs)
    del arguments[PROFILE]  # the Configs have its numbers already
    outside = local_paths(arguments)
    arguments |= {name: str(path) for name, path in outside.items()}
    allowed = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
    version = f"docker {image_id(STAGE_IMAGE)}" if docker else f"sources {sources_version()}"
    checkpoints = os.environ.get("KONDENSE_CHECKPOINTS", f"{CHECKPOINTS}/{slug(version)}") if caching else ""
    settings = LocalSettings(
        output_dir=output_dir.absolute(),
        cache_dir=cache_dir(),
        version=version,
        order=task_names(plan),
        caching=caching,
        docker=docker,
        environment={**store, "KONDENSE_CHECKPOINTS": checkpoints, **allowed},
        mounts=[path for path in (SYSTEM_DATA, *outside.values()) if path.exists()],
    )
    # Not nested: if a task of a nested graph fails, kfp.local continues with the others before it reports the failure.
    return settings, arguments, make_compress(arguments, bound, plan=plan, nested=False)


def local_paths(arguments: Mapping[str, Value]) -> dict[str, Path]:
    """Return the parameters that are local paths, made absolute: a container has another working directory."""
    paths = {name: Path(str(arguments[name])) for name in PATHS if arguments[name]}
    return {name: path.absolute() for name, path in paths.items() if path.exists()}


def slug(version: str) -> str:
    """Return a short name of ``version``: checkpoints of other code must not be continued."""
    return hashlib.sha256(version.encode()).hexdigest()[:12]


def check_stores(*uris: str) -> None:
    """Raise StoreError or InputError unless each store responds, before any training."""
    for uri in filter(None, uris):
        open_store(uri).exists("ready")


def timings(results: Mapping[str, StepResult], seconds: float, preflight: Preflight) -> dict[str, Any]:
    """Return what the run and its steps took, in seconds and bytes, beside the preflight's estimates."""
    estimates = {TRAIN_TEACHER if each.name == NETWORK else each.name: each for each in preflight.checks}
    steps = []
    for result in results.values():
        step = {"name": result.name, "reused": result.reused, "seconds": round(result.seconds, 3)}
        step |= {"peak_memory_bytes": result.memory_bytes} if result.memory_bytes else {}
        estimate = estimates.get(result.name)
        if estimate and estimate.memory_bytes:
            step["estimated"] = {"seconds": round(estimate.run_s, 3), "peak_memory_bytes": estimate.memory_bytes}
        steps.append(step)
    return {"seconds": round(seconds, 3), "steps": steps}


def collect(results: Mapping[str, StepResult], output_dir: Path) -> Path:
    """Copy the report, the candidates and the chosen model of a run to ``output_dir``; return report.html's path.

    Args:
        results: the steps' results by display name.
        output_dir: the run's directory.
    """
    for name, result in results.items():
        if name.startswith("evaluate "):
            target = output_dir / "candidates" / name.removeprefix("evaluate ")
            if result.failed:
                remove_directory(target, ignore_errors=True)  # of an earlier run
            else:
                copy(result.outputs["candidate"], target)
    outputs = results["report"].outputs
    copy(outputs["chosen"], output_dir / "chosen")
    for file in (REPORT, PAGE):
        write_file(output_dir / file, (outputs["report"] / file).read_bytes())
    return output_dir / PAGE


def copy(source: Path, target: Path) -> None:
    """Copy an artifact's directory, whole or not at all."""
    with new_directory(target) as scratch:
        copy_directory(source, scratch, hidden=False)
