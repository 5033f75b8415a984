"""Small pipelines, right ones and wrong ones, that show what the stand-in does."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

from kfp import compiler, dsl

component = functools.partial(dsl.component, base_image="python:3.11", install_kfp_package=False)


def compile_toy(pipeline: Any, directory: Path) -> Path:
    """Compile a pipeline and return its package."""
    path = directory / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path


@component
def make(model: dsl.Output[dsl.Model], text: str = "a model"):
    """Write a model that is one file."""
    with open(model.path, "w") as file:
        file.write(text)
    model.metadata.update(whole=2.0, flag=True, sizes=[1, 2.5], nested={"deep": None})


@component
def take(model: dsl.Input[dsl.Model], teacher: dsl.Input[dsl.Model] = None) -> str:
    """Return what the models are."""
    names = [type(each).__name__ for each in (model, teacher) if each]
    with open(model.path) as file:
        return f"{file.read()}: {' '.join(names)}"


@component
def take_union(model: dsl.Input[dsl.Model], teacher: dsl.Input[dsl.Model] | None = None) -> str:
    """Declare an optional model as kfp's executor cannot make it."""
    return type(model).__name__


@component
def tell(  # noqa: PLR0917 -- one of each kind
    width: float, epochs: int, layers: list, options: dict, note: str = "none", most: int = None
) -> NamedTuple("Told", [("types", str), ("whole", float), ("sizes", list), ("again", dict)]):
    """Return what the parameters are, and some of them."""
    types = ", ".join(f"{each!r}" for each in (width, epochs, layers, options, note, most))
    return types, width, layers, options


@component
def not_a_number(metrics: dsl.Output[dsl.Metrics]):
    """Log a metric that protobuf's JSON does not have."""
    metrics.log_metric("loss", float("nan"))


@component
def null(model: dsl.Output[dsl.Model]):
    """Give an artifact metadata that the store does not take."""
    model.metadata["framework"] = None


@component
def nothing() -> int:
    """Return nothing where a number is declared."""


@component
def file_of_nothing(number: dsl.OutputPath(int)):
    """Declare an output parameter and leave its file unwritten."""


@component
def answer(value: bool) -> bool:
    """Return the value."""
    return value


@component
def fail(model: dsl.Input[dsl.Model]):
    """Fail with a line in the log."""
    raise RuntimeError("no luck today")


@dsl.pipeline(name="right")
def right(text: str = "a text"):
    """Pass one model on."""
    made = make(text=text)
    take(model=made.outputs["model"])


@dsl.pipeline(name="union")
def union():
    """Give the optional model to a component that declares it as a union."""
    made = make()
    take_union(model=made.outputs["model"], teacher=make(text="another").outputs["model"])


@dsl.pipeline(name="union-left-out")
def union_left_out():
    """Leave the optional model out, which hides the fault."""
    take_union(model=make().outputs["model"])


@dsl.pipeline(name="twice")
def twice():
    """Give one model under two names."""
    made = make().outputs["model"]
    take(model=made, teacher=made)


@dsl.pipeline(name="inner")
def inner(first: dsl.Input[dsl.Model], text: str = "inner") -> NamedTuple("Out", [("same", dsl.Model)]):
    """Take a model, make one, return the new one."""
    made = make(text=text).set_display_name("make inside")
    take(model=made.outputs["model"], teacher=first).set_display_name("take inside")
    return NamedTuple("Out", [("same", dsl.Model)])(same=made.outputs["model"])


@dsl.pipeline(name="nested")
def nested(text: str = "outer"):
    """Use a graph in a graph and its output after it."""
    outer = make(text=text).outputs["model"]
    made = inner(first=outer)
    take(model=made.outputs["same"], teacher=outer).set_display_name("take outside")


@dsl.pipeline(name="pair")
def pair(first: dsl.Input[dsl.Model], second: dsl.Input[dsl.Model]):
    """Take two models into a graph."""
    take(model=first)
    take(model=second)


@dsl.pipeline(name="nested-twice")
def nested_twice():
    """Give a graph one model under two names; its tasks get it under one."""
    made = make().outputs["model"]
    pair(first=made, second=made)


@dsl.pipeline(name="optional-inside")
def optional_inside(first: dsl.Input[dsl.Model], second: dsl.Input[dsl.Model] = None):
    """Hand an optional model on."""
    take(model=first, teacher=second)


@dsl.pipeline(name="nested-left-out")
def nested_left_out():
    """Leave out a graph's optional model, which one of its tasks takes."""
    optional_inside(first=make().outputs["model"])


@dsl.pipeline(name="cached-twice")
def cached_twice():
    """Make one thing in two tasks: two artifacts when they run side by side, one from the cache otherwise."""
    take(model=make().outputs["model"], teacher=make().outputs["model"])


@dsl.pipeline(name="telling")
def telling(width: float = 1.0, layers: list = [1, 2.5, "x"], options: dict = {"a": {"b": 3}}):  # noqa: B006
    """Pass numbers, lists and structs through two tasks."""
    first = tell(width=width, epochs=3, layers=layers, options=options)
    second = tell(
        width=first.outputs["whole"],
        epochs=4,
        layers=first.outputs["sizes"],
        options=first.outputs["again"],
        note=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        most=7,
    )
    second.set_display_name("again")


@dsl.pipeline(name="choosing")
def choosing(value: bool = True):
    """Run one of two graphs."""
    given = answer(value=value).output
    with dsl.If(given == True):  # noqa: E712 -- kfp builds a condition of it
        make().set_display_name("yes")
    with dsl.Else():
        make().set_display_name("no")


def single(task: Any) -> Any:
    """Return a pipeline of one task without inputs."""

    @dsl.pipeline(name=task.name)
    def pipeline():
        task()

    return pipeline


@dsl.pipeline(name="failing")
def failing():
    """Fail in the second task."""
    fail(model=make().outputs["model"])


@dsl.pipeline(name="inner-telling")
def inner_telling(width: float, layers: list, options: dict = {"deep": [1]}) -> dict:  # noqa: B006
    """Take a list and a struct into a graph and return the struct."""
    told = tell(width=width, epochs=2, layers=layers, options=options).set_display_name("tell inside")
    return told.outputs["again"]


@dsl.pipeline(name="nested-telling")
def nested_telling(layers: list = ["a", 2.0]):  # noqa: B006
    """Pass a list into a graph and its struct on, beside a constant."""
    told = inner_telling(width=0.5, layers=layers)
    tell(width=3.0, epochs=1, layers=[["b"], 0.5], options=told.output)
