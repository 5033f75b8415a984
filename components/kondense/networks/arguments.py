"""Call a factory with what is known of the images, under the names that its author gave the parameters."""

import inspect
from collections.abc import Callable, Mapping
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


def _parameters(make: Callable[..., Any]) -> tuple[set[str] | None, bool]:
    """Return the names of a factory's parameters, None if they are not known, and whether it takes any others."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return None, True
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {each.name for each in parameters if each.kind not in variable}, any(
        each.kind is each.VAR_KEYWORD for each in parameters
    )
