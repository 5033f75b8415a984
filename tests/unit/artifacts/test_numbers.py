"""Numbers that a module holds are found, and set without changing what else holds them."""

import argparse
import copy
import dataclasses
import enum
import logging
import types
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from kondense.artifacts.numbers import numbers_held, set_number
from torch import nn

Sizes = namedtuple("Sizes", "hidden out")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: int
    out: int = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    hidden: int


class Width(enum.IntEnum):
    WIDE = 8


class Holder(nn.Module):
    depth = 3

    def __init__(self, sizes: Any) -> None:
        super().__init__()
        self.sizes = sizes


@pytest.mark.parametrize(
    ("sizes", "attribute", "changed"),
    [
        (8, "sizes", 6),
        ((8,), "sizes", (6,)),
        ([8], "sizes", [6]),
        ((8, 4), "sizes.0", (6, 4)),
        ([4, 8], "sizes.1", [4, 6]),
        ({"hidden": 8, "out": 4}, "sizes.hidden", {"hidden": 6, "out": 4}),
        (Sizes(8, 4), "sizes.0", Sizes(6, 4)),
        (torch.Size([8, 4]), "sizes.0", torch.Size([6, 4])),
        (Config(8), "sizes.hidden", Config(6)),
        (types.SimpleNamespace(hidden=8), "sizes.hidden", types.SimpleNamespace(hidden=6)),
        (argparse.Namespace(hidden=8), "sizes.hidden", argparse.Namespace(hidden=6)),
        (Slotted(8), "sizes.hidden", Slotted(6)),
        (np.int64(8), "sizes", np.int64(6)),
        (Width.WIDE, "sizes", 6),
        ({"model": {"widths": [4, 8]}}, "sizes.model.widths.1", {"model": {"widths": [4, 6]}}),
        ({"model": Config((8,))}, "sizes.model.hidden", {"model": Config((6,))}),
        ((Sizes(8, 1), 2), "sizes.0.0", (Sizes(6, 1), 2)),
    ],
    ids=str,
)
def test_a_number_is_set_where_it_is_held(sizes: Any, attribute: str, changed: Any) -> None:
    module, before = Holder(sizes), copy.deepcopy(sizes)
    assert numbers_held(module)[attribute] == 8
    set_number(module, attribute, 6)
    assert module.sizes == changed and type(module.sizes) is type(changed)
    assert sizes == before  # others may hold it, too


def test_a_number_of_the_class_is_set_on_the_module_alone() -> None:
    module = Holder(None)
    assert numbers_held(module) == {"depth": 3}
    set_number(module, "depth", 2)
    assert (module.depth, Holder.depth) == (2, 3)


@pytest.mark.parametrize(
    "value", [True, 1.5, "8", (8.0,), torch.zeros(8), nn.Linear(8, 8), len, int, {"_own": 8}, {8: 8}]
)
def test_what_is_no_size_is_no_number(value: Any) -> None:
    assert numbers_held(Holder(value)) == {"depth": 3}


def test_objects_of_libraries_are_left_alone() -> None:
    """A logger has levels, and a copy of it is itself."""
    assert numbers_held(Holder(logging.getLogger("kondense"))) == {"depth": 3}
    assert numbers_held(Holder(torch.Generator())) == {"depth": 3}


def test_what_holds_itself_is_read_so_far() -> None:
    endless: dict[str, Any] = {"hidden": 8}
    endless["again"] = endless
    assert list(numbers_held(Holder(endless))) == [
        "depth",
        "sizes.hidden",
        "sizes.again.hidden",
        "sizes.again.again.hidden",
    ]
