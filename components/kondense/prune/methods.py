"""The pruning methods, read from their own files (see ``kondense.methods``); free of torch.

A method declares ``METHOD`` with these keys: ``name``, ``summary``, ``function`` and

    kind              ``weights`` (masks zero them, shapes stay) or ``channels`` (they are removed)
    criterion         greedy may rank the channels of a group by its score
    scope             the scope that ``auto`` means, if it is not global
    layer_adaptive    its scores may be compared by LAMP
    fixed_sparsity    it cannot be tried at another sparsity, so neither ``sensitivity`` nor an accuracy bound applies

Its function is a score, or a ``prepare(module, context)`` that returns a ``Pruner``. The name of a score's second
parameter says what it ranks; the lowest scores are pruned first:

    score(module, groups)   -> {name: [channels]} for every ``kondense.channels.dependencies.ChannelGroup`` by name
    score(module, weights)  -> {name: tensor in the weight's shape} for every ``nn.Parameter`` by name

A score that needs data, a seed or the loss has a third parameter ``context``, a ``kondense.prune.context.Context``.
A score of another package is passed to ``prune(..., method=score)`` or registered as an entry point of the group
``kondense.scores``; neither needs a ``METHOD``.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kondense.errors import InputError
from kondense.methods import Methods

KINDS = {"groups": "channels", "weights": "weights"}  # by the name of a score's second parameter


def kind_of(score: Callable[..., Any]) -> str:
    """Return ``channels`` or ``weights``: what a score ranks.

    Raises:
        InputError: the name of its second parameter is neither ``groups`` nor ``weights``.
    """
    names = list(inspect.signature(score).parameters) if callable(score) else []
    kind = KINDS.get(names[1]) if len(names) > 1 else None
    if kind is None:
        raise InputError(f"a score must be a function (module, groups) or (module, weights), but got {score!r}.")
    return kind


def bind(score: Callable[..., Any], context: object) -> Callable[..., Any]:
    """Return ``score`` with its third parameter, if it has one, set to ``context``."""
    return functools.partial(score, context=context) if "context" in inspect.signature(score).parameters else score


def _describe(name: str, score: Callable[..., Any]) -> Mapping[str, Any]:
    return {"kind": kind_of(score)}


METHODS = Methods(
    "kondense.prune",
    "kondense.prune.masks",
    "kondense.prune.scores",
    group="kondense.scores",
    describe=_describe,
)
