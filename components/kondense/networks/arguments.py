"""Call a factory with what is known of the images, under the names that its author gave the parameters."""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# By the argument of a spec, what people call the parameter; other names, such as n_channels, may mean hidden layers.
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "classes": ("classes", "num_classes", "n_classes", "nb_classes", "num_class", "n_class", "num_labels"),
    "channels": ("channels", "in_channels", "in_chans", "input_channels"),
    "image_size": ("image_size", "img_size", "resolution"),
}


def arguments_for(make: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a factory.

    Args:
        make: the factory; of ``classes``, ``channels`` and ``image_size`` it gets those that it takes.
        arguments: of a spec. Others than these three are the user's own and stay as they are.

    Example:
        >>> arguments_for(lambda num_classes, in_chans=3: None, {"classes": 10, "channels": 1, "image_size": 28})
        {'num_classes': 10, 'in_chans': 1}
    """
    named, takes_any = _parameters(make)
    if named is None:
        return dict(arguments)
    takes_any = takes_any and not named & {*PARAMETERS["classes"][1:]}  # else **options are those of another library
    given = {}
    for name, value in arguments.items():
        known = [each for each in PARAMETERS.get(name, ()) if each in named]
        if known:
            given[known[0]] = value
        elif name not in PARAMETERS or takes_any:
            given[name] = value
    return given


def takes_classes(make: Callable[..., Any]) -> bool:
    """Return whether a factory has a parameter for the number of classes."""
    named, takes_any = _parameters(make)
    return named is None or takes_any or bool(named & {*PARAMETERS["classes"]})


def takes_anything(make: Callable[..., Any]) -> bool:
    """Return whether a factory has no such parameter, but takes any (``**kwargs``)."""
    named, takes_any = _parameters(make)
    return named is not None and takes_any and not named & {*PARAMETERS["classes"]}


def _parameters(make: Callable[..., Any]) -> tuple[set[str] | None, bool]:
    """Return the names of a factory's parameters, None if they are not known, and whether it takes any others.

    What a factory takes as ``**kwargs`` it hands to the class that it is annotated to return, and a class to its base.
    """
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names: set[str] = set()
    for number, each in enumerate(_called(make)):
        try:
            parameters = inspect.signature(each).parameters.values()
        except (TypeError, ValueError):
            return (names, True) if number else (None, True)
        names |= {parameter.name for parameter in parameters if parameter.kind not in variable}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return names, False
    return names - {"self"}, True


def _called(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield a factory, and the constructors that its keyword arguments may go to."""
    yield make
    made: Any = inspect.unwrap(make.func if isinstance(make, functools.partial) else make)
    if not isinstance(made, type):
        try:
            made = typing.get_type_hints(made).get("return")
        except (NameError, TypeError, AttributeError):  # a name for type checkers only
            return
        if not isinstance(made, type) or made.__module__.startswith("torch."):
            return
        yield made
    for base in made.__mro__[1:]:
        if "__init__" in vars(base):
            if base.__module__.startswith(("torch.", "builtins")):
                return
            yield vars(base)["__init__"]
