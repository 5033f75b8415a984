"""The KFP component of a stage, made from its Config and its entry in ``kondense.stages``.

KFP ships a component as the source text of a function, which calls ``run_component`` in the container.
``python -m kondense.kfp prune`` prints that source.
"""

import functools
import linecache
import sys
import traceback
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

from kfp import dsl

from kondense import launch
from kondense.artifacts.comparison import compared
from kondense.artifacts.failed import (
    Failed,
    first_failed,
    is_independent,
    is_trouble,
    reason_of,
    write_failed,
)
from kondense.artifacts.inputs import fetched, is_empty
from kondense.artifacts.metadata import failed_title, metadata_of
from kondense.artifacts.report import EVALUATION, PAGE, read_evaluation
from kondense.config import Config, described
from kondense.errors import EXPECTED, ShortfallError
from kondense.failure import report_failure, reporting_failures
from kondense.files import read_json
from kondense.images import STAGE_IMAGE
from kondense.logging import LOG, to_stdout
from kondense.profiles import DEFAULT_PROFILE, PROFILES
from kondense.stages import STAGES, VIEWS, Artifact, Stage, config_values
from kondense.usage import usage_told

PROFILE = {
    "profile": (str, DEFAULT_PROFILE, f"sets the numbers that are -1 ({', '.join(PROFILES)})"),
    "step": (str, "", "the pipeline's step whose numbers of the profile are used; empty: none"),
}
SOURCE = '''\
def {name}(
{parameters}
) -> {returns}:
    """{summary}.

    Args:
{descriptions}
    """
    from kondense.kfp import run_component

    return run_component("{name}", locals())
'''


@functools.cache
def component(name: str, image: str = STAGE_IMAGE) -> Any:
    """Return the KFP component of a stage.

    Args:
        name: the stage, built in or registered by an entry point.
        image: runs it; the stage's package and Kondense must be installed in it.

    Raises:
        KeyError: there is no such stage.
        InputError: the stage of an entry point cannot be imported.
    """
    text, file = source(STAGES[name]), f"<component {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # inspect.getsource reads it here
    namespace: dict[str, Any] = {"__name__": __name__, "dsl": dsl, "NamedTuple": NamedTuple}
    exec(compile(text, file, "exec"), namespace)
    factory = dsl.component(base_image=image, install_kfp_package=False, packages_to_install=[])
    return factory(namespace[name])


def source(stage: Stage) -> str:
    """Return the function that KFP ships; its signature and docstring are the component's."""
    scalars = dict(parameters(stage))
    artifacts = [
        f"{name}: dsl.{side}[dsl.{artifact.type}]{' = None' if optional else ''}"
        for side, group in (("Input", stage.inputs), ("Output", stage.outputs))
        for artifact in group
        for name, optional in artifact.names.items()
    ]
    lines = sorted(artifacts, key=lambda line: line.endswith("None"))  # those without default come first
    lines += [f"{name}: {kind.__name__} = {default!r}" for name, (kind, default, _) in scalars.items()]
    return SOURCE.format(
        name=stage.name,
        parameters="\n".join(f"    {line}," for line in lines),
        returns=annotation(stage.returns),
        summary=in_docstring(stage.summary[0].upper() + stage.summary[1:]),
        descriptions="\n".join(f"        {name}: {in_docstring(text)}" for name, (_, _, text) in scalars.items()),
    )


def in_docstring(text: str) -> str:
    """Return a text as one line of a docstring."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def parameters(stage: Stage) -> Iterator[tuple[str, tuple[type, Any, str]]]:
    """Yield type, default and description of a component's parameters by name: the Config's fields, and a few more."""
    hints = typing.get_type_hints(stage.config_class)
    structures = stage.structures
    for name, (kind, text) in structures.inputs.items() if structures else ():
        yield name, (kind, kind(), text)
    for field in fields(stage.config_class):
        if not structures or field.name not in structures.replaced:
            yield field.name, (hints[field.name], field.default, described(field))
    yield from PROFILE.items() if stage.profiled else ()


def annotation(returns: Mapping[str, type]) -> str:
    """Return the annotation of a component that returns these parameters."""
    if list(returns) in ([], ["Output"]):
        return next((kind.__name__ for kind in returns.values()), "None")
    listed = ", ".join(f'("{name}", {kind.__name__})' for name, kind in returns.items())
    return f'NamedTuple("Outputs", [{listed}])'


def run_component(name: str, arguments: Mapping[str, Any]) -> Any:
    """Run a stage on the artifacts of a KFP task, describe its outputs, and return its parameters.

    Args:
        name: the stage.
        arguments: parameters and artifacts by name, as KFP's executor passes them; an omitted artifact is None.
    """
    launch.set_variables()
    with to_stdout(), reporting_failures():
        stage = STAGES[name]
        inputs = {key: arguments[key] for artifact in stage.inputs for key in artifact.names}
        if failed := failure_before(stage, inputs):
            pass_on(stage, arguments, {**failed, "passed_on": True})
            return None
        try:
            with fetched(**inputs):
                config = make_config(stage, arguments, inputs)
                with usage_told():
                    metrics = launch.run(stage, config, directories(stage, arguments))
        except ShortfallError as error:  # the outputs are written
            if not is_independent():
                raise
            LOG.warning("%s", error)
            metrics = {}
        except Exception as error:  # a candidate's own failure of any kind; the others go on
            gone = any(is_empty(Path(each.path)) for each in inputs.values() if each)
            if not is_independent() or is_trouble(error) or gone:
                raise
            if not isinstance(error, EXPECTED):
                traceback.print_exc()
            report_failure(reason_of(error))
            pass_on(stage, arguments, {"name": "", "step": name, "reason": reason_of(error)})
            return None
        show_outputs(stage, config, arguments, metrics)
        return returned(stage, arguments, metrics)


def failure_before(stage: Stage, inputs: Mapping[str, Any]) -> Failed | None:
    """Return why an input's model could not be made; None if all were, or if the stage reads failures itself."""
    read = [artifact.name for artifact in stage.inputs if artifact.type == "Model" and not artifact.several]
    return first_failed(Path(inputs[name].path) for name in read if inputs[name])


def pass_on(stage: Stage, arguments: Mapping[str, Any], failed: Failed) -> None:
    """Write a failure in the place of every output, with a display name that says so."""
    failed = {**failed, "name": failed["name"] or (str(arguments["name"]) if stage.name == "evaluate" else "")}
    LOG.info("no model: %s failed: %s", failed["step"], failed["reason"])
    for output in stage.outputs:
        artifact = arguments[output.name]
        if output.type not in VIEWS:
            write_failed(Path(artifact.path), failed)
            artifact.metadata.update(metadata_of(Path(artifact.path)))
        artifact.metadata["display_name"] = failed_title(failed["step"], failed["reason"])


def make_config(stage: Stage, arguments: Mapping[str, Any], inputs: Mapping[str, Any]) -> Config:
    """Return the Config of a task; an empty field ``<input>_uri`` gets the address of that input."""
    values = config_values(stage, arguments)
    values |= {f"{key}_uri": inputs[key].uri for key in inputs if inputs[key] and values.get(f"{key}_uri") == ""}
    return stage.config_class(**values)


def directories(stage: Stage, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paths that a stage's function takes, without those of omitted artifacts."""
    found = {}
    for artifact in stage.directories:
        if paths := [Path(arguments[name].path) for name in artifact.names if arguments[name]]:
            found[artifact.directory] = paths if artifact.several else paths[0]
    return found


def show_outputs(stage: Stage, config: Config, arguments: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Set the metadata of all outputs, and write those that only KFP's pages show."""
    dataset = Path(arguments["dataset"].path) if "dataset" in arguments else None
    for output in sorted(stage.outputs, key=lambda output: output.type in VIEWS):  # views show the others
        artifact = arguments[output.name]
        if output.type in VIEWS:
            show(output, artifact, arguments, metrics)
            shown = arguments[output.source].metadata.get("display_name") if output.source else output.name
            artifact.metadata["display_name"] = output.title.format(**config.to_dict()) or shown
        else:
            title = output.title or "{method}"
            artifact.metadata.update(metadata_of(Path(artifact.path), title=title, dataset_dir=dataset))


def show(output: Artifact, artifact: Any, arguments: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Write one view: the page of its source, its source's evaluation, or the metrics of the stage."""
    source = Path(arguments[output.source].path) if output.source else Path()
    if output.type == "HTML":
        copyfile(source / PAGE, artifact.path)
    elif output.type == "ClassificationMetrics":
        evaluation = read_evaluation(source)
        artifact.log_confusion_matrix(evaluation["dataset"]["classes"], evaluation["confusion"])
    else:
        for name, value in (figures(source, arguments.get("teacher")) if output.source else metrics).items():
            artifact.log_metric(name, value)


def figures(directory: Path, teacher: Any) -> dict[str, float]:
    """Return a measured model's figures, against the teacher if that was measured or is the model itself."""
    evaluation = read_evaluation(directory)
    if teacher and (Path(teacher.path) / EVALUATION).is_file():
        return compared(evaluation, read_evaluation(Path(teacher.path)))
    return compared(evaluation, evaluation if evaluation["name"] == "teacher" else None)


def returned(stage: Stage, arguments: Mapping[str, Any], metrics: Mapping[str, float]) -> Any:
    """Return the parameters that a component returns."""
    if stage.name == "champion":
        return bool(metrics["challenge"])
    if stage.name == "katib_search":
        best = read_json(Path(arguments["search"].path) / "best.json", format_version=1)
        return tuple(best["trial"] if name == "trial" else best["config"][f"train.{name}"] for name in stage.returns)
    return tuple(kind(metrics[name]) for name, kind in stage.returns.items()) or None


if __name__ == "__main__":
    print(source(STAGES[sys.argv[1]]), end="")
