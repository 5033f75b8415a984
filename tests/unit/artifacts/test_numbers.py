"""Numbers that a module holds are found, and set without changing what else holds them."""

import copy
import dataclasses
import types
from collections import namedtuple
from typing import Any

import pytest
import torch
from kondense.artifacts.numbers import numbers_held, set_number
from torch import nn

Sizes = namedtuple("Sizes", "hidden out")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: int
    out: int = 4


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
