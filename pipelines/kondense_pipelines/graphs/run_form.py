"""A pipeline function made from a table of parameters, each of which is declared once, in a Config.

KFP reads a pipeline's parameters from a function's signature and their descriptions from its docstring, and passes
values by position; ``inspect.signature`` and ``inspect.getdoc`` let both be made from the table.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from kondense.config import Config, described


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a pipeline.

    Attributes:
        kind: its type: int, float, str, bool, list or dict.
        default: the value in the run form; ``inspect.Parameter.empty`` for a required one.
        description: one line.
        literals: the allowed values; empty for any.
    """

    kind: Any
    default: Any = inspect.Parameter.empty
    description: str = ""
    literals: tuple[Any, ...] = ()


def field_parameter(config: type[Config], name: str, default: Any = None, description: str = "") -> Parameter:
    """Return the parameter of a Config's field, whose default and description the arguments outweigh."""
    field = config.__dataclass_fields__[name]
    value = field.default if default is None else default
    kind = typing.get_type_hints(config)[name]
    return Parameter(kind, value, described(field, description), field.metadata["choices"])


def pipeline_function(
    name: str,
    summary: str,
    parameters: Mapping[str, Parameter],
    build: Callable[[dict[str, Any]], Any],
    *,
    returns: Any = None,
) -> Callable[..., Any]:
    """Return a function for ``dsl.pipeline``.

    Args:
        name: of the function.
        summary: the first line of its docstring.
        parameters: by name, in order; artifacts among them have ``dsl.Input[...]`` as their kind.
        build: makes the tasks from the parameters' values and returns the pipeline's outputs.
        returns: their annotation; None without outputs.
    """

    def function(*arguments: Any, **named: Any) -> Any:
        return build({**dict(zip(parameters, arguments, strict=False)), **named})

    described = [f"    {key}: {each.description}" for key, each in parameters.items() if each.description]
    function.__name__ = name
    function.__doc__ = "\n".join([summary, "", "Args:", *described]) if described else summary
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect reads
        [
            inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=each.default, annotation=each.kind)
            for key, each in parameters.items()
        ],
        return_annotation=returns,
    )
    return function


def set_literals(pipeline: Any, parameters: Mapping[str, Parameter]) -> None:
    """Write the allowed values of parameters into a pipeline's IR, for which the DSL has no words.

    KFP 2.17 then shows a list to choose from and refuses any other value; 2.16 knows the field and shows nothing.
    """
    from google.protobuf import struct_pb2

    declared = pipeline.pipeline_spec.root.input_definitions.parameters
    for name, each in parameters.items():
        for literal in each.literals:
            number = isinstance(literal, int | float) and not isinstance(literal, bool)
            value = struct_pb2.Value(number_value=literal) if number else struct_pb2.Value(string_value=literal)
            declared[name].literals.append(value)


def parameter_table(parameters: Mapping[str, Parameter]) -> str:
    """Return the parameters as a list for a pipeline's description, which the UI shows; the form shows names only."""
    rows = [f"- {name} ({_shown(each)}): {each.description}" for name, each in sorted(parameters.items())]
    return "\n".join(rows)


def _shown(parameter: Parameter) -> str:
    if isinstance(parameter.default, dict | list):
        return "as the package says" if parameter.default else "empty"
    return repr(parameter.default) if isinstance(parameter.default, str) else str(parameter.default)
