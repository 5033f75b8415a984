"""The conditions that kfp compiles of ``dsl.If``, ``dsl.Elif`` and ``dsl.Else``, for texts, truth values and ints.

Everything else of the expression language is refused: numbers with a point compare in ways of its own there.
"""

import re
from collections.abc import Mapping
from typing import Any

OPERAND = r"(?:(int)\()?inputs\.parameter_values\['([^']+)'\](?(1)\))"
LITERAL = r"(true|false|-?\d+|'[^'\\]*')"
COMPARISON = re.compile(rf"\s*{OPERAND}\s*(==|!=)\s*{LITERAL}\s*")
NEGATION = re.compile(r"\s*!\s*\((.*)\)\s*", re.DOTALL)


def holds(condition: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether a condition holds for a task's input parameters.

    Raises:
        NotImplementedError: a form that is not supported here.
        KeyError: a parameter that the task does not have.
    """
    parts = condition.split("&&")
    if len(parts) > 1:
        return all([holds(part, parameters) for part in parts])
    if match := NEGATION.fullmatch(condition):
        return not holds(match[1], parameters)
    match = COMPARISON.fullmatch(condition)
    if not match:
        raise NotImplementedError(f"the condition {condition!r} is not supported here.")
    whole, name, operator, literal = match.groups()
    equal = _value(parameters[name], bool(whole), condition) == _literal(literal)
    return equal if operator == "==" else not equal


def _value(value: Any, whole: bool, condition: str) -> tuple[type, Any]:
    if whole:
        value = int(value)
    elif not isinstance(value, bool | str):
        raise NotImplementedError(f"the condition {condition!r} compares {value!r}, which is not supported here.")
    return type(value), value  # true is not 1 there


def _literal(text: str) -> tuple[type, Any]:
    if text.startswith("'"):
        return str, text[1:-1]
    return (bool, text == "true") if text in ("true", "false") else (int, int(text))
