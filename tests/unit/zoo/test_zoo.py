"""A part of the zoo that takes seconds; `python -m benchmarks.zoo` runs all of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.zoo.cells import Cell, attempt, cached, run_cell
from benchmarks.zoo.constructs import CONSTRUCTS
from benchmarks.zoo.networks import GROUPS, SIZES, chosen
from benchmarks.zoo.operations import OPERATIONS, DifferentError, compare
from benchmarks.zoo.surgery import row, turns
from benchmarks.zoo.table import tables, totals

NETWORKS = (
    "view_flatten",
    "asserts",
    "norm_over_tokens",
    "swiglu",
    "channel_shuffle",
    "dense",
    "squeeze_excitation",
    "shared_twice",
    "tied",
    "weight_norm",
    "dict_output",
    "auxiliary_head",
)
ONES = np.ones(4)
QUICK = ("train", "l1", "magnitude", "weight_only", "dynamic")


CASES = [(network, operation) for network in NETWORKS for operation in QUICK]
CASES += [(name, "l1") for name in ("own_layer_classes", "versioned_state", "prelu", "instance_norm")]
CASES += [
    ("gru", "l1"),
    ("layer_scale", "l1"),
    ("gated_tokens", "greedy"),
    ("prompted", "distill"),
    ("two_scales", "qat"),
    ("shapes_in_code", "l1"),
    ("scaled_standardized", "l1"),
    ("file_constants", "l1"),
    ("reads_the_coarse", "l1"),
    ("prototypes", "export"),
    ("transposed_groups", "l1"),
    ("transposed_groups", "static"),
    ("slimmable", "magnitude"),
]
CASES += [(name, "l1") for name in ("convolutional_lstm", "selective_scan", "time_mix", "integrated", "slot_attention")]
CASES += [(name, "l1") for name in ("wavenet", "cosine_attention", "partial_convolution", "outlook", "min_gru")]
CASES += [("three_dimensional", "train"), ("three_dimensional", "l1"), ("encoder_layer", "qat")]


@pytest.mark.parametrize(("network", "operation"), CASES)
def test_it_works(network: str, operation: str, tmp_path: Path) -> None:
    found = attempt(f"benchmarks.zoo.constructs:{network}", OPERATIONS[operation], tmp_path)
    assert (found["result"], found.get("where", "")) == ("ok", ""), found["text"]


def test_what_cannot_work_is_refused_in_one_line(tmp_path: Path) -> None:
    """A network that multiplies all channels with all has no channel to remove."""
    found = attempt("benchmarks.zoo.constructs:linear_attention", OPERATIONS["l1"], tmp_path)
    assert found["result"] == "refused"
    assert re.search(r"no channel to remove.*inner.qkv", found["text"])


def busy(network: str, directory: Path) -> str:
    while True:
        pass


def different(network: str, directory: Path) -> str:
    compare("twice", ONES, 2 * ONES, 0.5)
    return ""


def greedy_for_memory(network: str, directory: Path) -> str:
    return str(len(bytearray(1 << 40)))


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (busy, "still running after 1 s of processor time"),
        (different, "DifferentError: twice: relative error 1, but at most 0.5 is rounding"),
        (greedy_for_memory, "MemoryError"),
    ],
)
def test_a_hang_a_difference_and_a_lack_of_memory_are_faults(function, text: str) -> None:
    cell = run_cell("lenet5", "export", function, cpu_s=1)
    assert (cell.result, cell.network, cell.operation) == ("fault", "lenet5", "export")
    assert cell.text.startswith(text)


def test_a_finished_cell_is_kept(tmp_path: Path) -> None:
    cell = Cell("lenet5", "l1", "ok", "fine", cpu_s=1.5)
    assert cached(lambda: cell, tmp_path / "folder" / "cell.json") == cell
    assert cached(lambda: pytest.fail("run again"), tmp_path / "folder" / "cell.json") == cell


def test_tables_have_a_mark_per_cell_and_the_reasons() -> None:
    cells = [Cell("lenet5", "l1", "ok"), Cell("lenet5", "nm", "fault", "KeyError: 1", "kondense/x.py:3")]
    lines = tables(cells, ["l1", "nm"], GROUPS)
    assert "| lenet5 | + | F |" in lines
    assert lines[-1] == "- fault: lenet5 nm: KeyError: 1 [kondense/x.py:3]"
    assert totals(cells) == ["2 cells: ok 1 (50.0 %), refused 0 (0.0 %), fault 1 (50.0 %)."]


def test_surgery_is_timed_in_turn_and_a_peer_that_fails_is_told() -> None:
    def ours(network: str, directory: Path) -> str:
        return "0.125 s + 0.25 s"

    def fails(network: str, directory: Path) -> str:
        raise IndexError("3\n4")

    assert turns([ours, fails], "lenet5", 2) == [[0.375, 0.375], "IndexError: 3 4"]
    assert row([0.2, 0.1, 0.4], [0.4, 0.2, 0.2]) == "0.100 | 0.200 | 0.50 | 1.00"
    assert row([0.2], "IndexError: 3") == "0.200 | IndexError: 3 |  | "


def test_networks_are_chosen_by_name_group_or_part() -> None:
    assert chosen(["lenet300"]) == ["lenet300"]
    assert len(chosen(["constructs"])) == len(CONSTRUCTS) >= 40
    assert chosen([]) == list(SIZES)
    with pytest.raises(SystemExit, match="must name networks or groups"):
        chosen(["resnet1800"])
    with pytest.raises(DifferentError, match="relative error nan"):
        compare("nothing", ONES, ONES * float("nan"), 1.0)
