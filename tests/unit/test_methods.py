"""Tables of methods are read from the methods' files, without importing them."""

import subprocess
import sys

import pytest
from kondense.methods import Methods
from kondense.prune.methods import METHODS


@pytest.mark.parametrize("name", METHODS.of_kind("weights") + METHODS.of_kind("channels"))
def test_a_method_has_a_file_of_its_name_and_a_function(name: str) -> None:
    method = METHODS[name]
    assert method.location.partition(":")[0].rpartition(".")[2] == name
    assert method.summary and method.summary[0].islower() and not method.summary.endswith(".")
    assert callable(method.load())


def test_a_table_needs_no_torch() -> None:
    program = "import sys; from kondense.prune.config import PruneConfig; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_a_table_is_a_mapping_in_alphabetical_order() -> None:
    table = Methods("kondense.prune.scores")
    assert list(table) == ["bn_scale", "fpgm", "l1", "l2", "taylor_channel"]
    assert len(table) == 5 and "l1" in table and "l3" not in table
    assert table.having("criterion") == ("fpgm", "l1", "l2", "taylor_channel")
    with pytest.raises(KeyError):
        table["l3"]
