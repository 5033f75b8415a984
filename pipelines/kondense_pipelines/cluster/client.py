"""Start runs and maintain recurring runs on Kubeflow Pipelines."""

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kondense.config import check_choice, parse
from kondense.errors import InputError
from kondense.json_text import json_value
from kondense.scratch import scratch_directory

from kondense_pipelines.cluster.access import (
    Access,
    AccessError,
    Connected,
    VersionNumber,
    check_package,
    check_version,
    connect,
    refusals_explained,
    run_page,
    written,
)
from kondense_pipelines.cluster.checks import check_parameters
from kondense_pipelines.cluster.naming import run_description, run_title, source_revision
from kondense_pipelines.cluster.package import Package, read_package
from kondense_pipelines.cluster.recurring import Schedule, schedule_run
from kondense_pipelines.cluster.versions import Registered, experiment_id, register
from kondense_pipelines.graphs.resources import TELLS_MORE

__all__ = ["Access", "AccessError", "Connected", "check_version", "connect", "read_parameters", "schedule", "submit"]

# KFP's parameter types -> Python's; the others are JSON.
KINDS: Mapping[str, type] = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool}

Recompile = Callable[[str], Path]  # compiles a package for the server's version


def read_parameters(package: Path, texts: Iterable[str]) -> dict[str, Any]:
    """Return the parameters of a compiled pipeline that ``name=value`` texts set.

    Raises:
        InputError: another form, an unknown name (the known ones are listed), or a text that is not of its type.
    """
    return _parsed(read_package(package), texts)


def _parsed(package: Package, texts: Iterable[str]) -> dict[str, Any]:
    declared = package.parameters
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--param must be name=value, but got {text!r}.")
        check_choice("the name in --param", name, tuple(declared))
        kind = KINDS.get(declared[name]["parameterType"])
        values[name] = parse(name, kind, value) if kind else json_value(value, name)
    return values


def declared_parameters(package: Path) -> dict[str, Any]:
    """Return the parameters of a compiled pipeline: type, default and description by name.

    Raises:
        InputError: the file is not a compiled pipeline.
    """
    return read_package(package).parameters


def submit(
    access: Access,
    package: Path,
    texts: Iterable[str] = (),
    *,
    name: str = "",
    revision: str = "",
    caching: bool = True,
    recompile: Recompile | None = None,
) -> Iterator[str]:
    """Start a run of a compiled pipeline and yield a line with its address.

    It is a run of the package's version, which is uploaded if it does not exist.

    Args:
        access: address and credentials.
        package: the compiled pipeline.
        texts: parameters, ``name=value``.
        name: of the run; data set, network and time by default.
        revision: of the source that the package was compiled from; this source's by default.
        caching: False: no task reuses the results of an earlier run. Such a run has no version: the API cannot start
            a version without its cache, and the UI would offer a version without cache first.
        recompile: compiles the package for a server that is too old for it; without it, that is an error.

    Raises:
        InputError: a parameter is wrong, or the package is not for this server.
        AccessError: the platform cannot be reached, or refuses.
    """
    import kfp_server_api

    compiled = read_package(package)
    parameters = _parsed(compiled, texts)
    check_parameters(compiled, parameters)
    connected = connect(access)
    fitting = fit(compiled, connected.version, recompile)
    revision = revision or source_revision()
    body = kfp_server_api.V2beta1Run(
        display_name=name or run_title(fitting, parameters, datetime.datetime.now()),
        description=run_description(fitting, parameters, revision, caching=caching),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=parameters),
        service_account=access.service_account or None,
    )
    with refusals_explained(access):
        if caching:
            registered = register(connected.client, fitting, revision, connected.namespace)
            body.pipeline_version_reference = kfp_server_api.V2beta1PipelineVersionReference(
                pipeline_id=registered.pipeline_id, pipeline_version_id=registered.version_id
            )
        else:
            body.pipeline_spec = fitting.without_cache().for_a_run()
        body.experiment_id = experiment_id(connected.client, connected.namespace)
        run = connected.client.runs.run_service_create_run(run=body)
    of = f" of version {registered.title}" if caching else " without the cache"
    yield f"run {run.display_name} ({run.run_id}) is started{of}: {run_page(access, connected, run.run_id)}"


def fit(package: Package, version: VersionNumber, recompile: Recompile | None = None) -> Package:
    """Return a package that a server of that version accepts.

    Raises:
        InputError: it does not, and ``recompile`` is None.
    """
    fitting = read_package(recompile(written(version))) if recompile and version < TELLS_MORE else package
    check_package(fitting, version)
    return fitting


def schedule(
    access: Access,
    package: Path,
    wanted: Schedule,
    revision: str,
    *,
    caching: bool = True,
    recompile: Recompile | None = None,
) -> Iterator[str]:
    """Upload a compiled pipeline, create its recurring run or replace one that differs, and yield lines of the actions.

    A second call with the same arguments changes nothing.

    Args:
        access: address and credentials.
        package: the compiled pipeline.
        wanted: the recurring run.
        revision: of the source that the package was compiled from.
        caching: False: no task of its runs reuses the results of an earlier run; see ``submit``.
        recompile: compiles the package for a server that is too old for it; without it, that is an error.

    Raises:
        InputError: a parameter is wrong, or the package is not for this server.
        AccessError: the platform cannot be reached, or refuses.
    """
    compiled = read_package(package)
    check_parameters(compiled, wanted.parameters)
    connected = connect(access)
    fitting = fit(compiled, connected.version, recompile)
    description = run_description(fitting, wanted.parameters, revision, caching=caching)
    with refusals_explained(access), scratch_directory("cluster") as scratch:
        if caching:
            source: Registered | Path = register(connected.client, fitting, revision, connected.namespace)
            yield str(source)
        else:
            source = scratch / "pipeline.yaml"
            source.write_text(fitting.without_cache().as_text(), encoding="utf-8")
        yield from schedule_run(
            connected.client,
            wanted,
            source,
            description=description,
            namespace=connected.namespace,
            service_account=access.service_account or None,
        )
