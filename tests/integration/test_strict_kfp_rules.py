"""The stand-in for KFP's backend takes what the real one takes and refuses what it refuses."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.strict_kfp import toys
from tests.support.strict_kfp.backend import Backend, Step, StepError
from tests.support.strict_kfp.conditions import holds
from tests.support.strict_kfp.driver import DriverError
from tests.support.strict_kfp.fork_server import ForkServer
from tests.support.strict_kfp.lineage import LineageError
from tests.support.strict_kfp.values import as_text, as_type, read_output, stored, wire


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


class Toys:
    """Runs toy pipelines on one backend."""

    def __init__(self, server: ForkServer, directory: Path) -> None:
        self.directory = directory
        self.backend = Backend(directory / "backend", server)

    def __call__(self, pipeline: Any, **parameters: Any) -> dict[str, Step]:
        return self.backend.run(toys.compile_toy(pipeline, self.directory), parameters)


@pytest.fixture
def run(server: ForkServer, tmp_path: Path) -> Toys:
    return Toys(server, tmp_path)


def test_artifacts_and_parameters_are_passed_on(run: Toys) -> None:
    steps = run(toys.right, text="given")
    assert steps["take"].parameters == {"Output": "given: Model"}
    assert steps["make"].outputs["model"].read_text() == "given"


def test_inputs_have_no_type_and_metadata_the_stores_form(run: Toys) -> None:
    (found,) = run(toys.right)["take"].message["inputs"]["artifacts"]["model"]["artifacts"]
    assert found["type"] == {"instanceSchema": ""}
    assert found["uri"].startswith("minio://mlpipeline/v2/artifacts/right/")
    assert found["metadata"].pop("store_session_info")
    assert found["metadata"] == {
        "display_name": "model",
        "whole": 2,
        "flag": 1,
        "sizes": {"list": [1, 2.5]},
        "nested": {"struct": {"deep": None}},
    }


def test_an_optional_artifact_as_a_union_is_refused_where_it_is_given(run: Toys) -> None:
    with pytest.raises(StepError, match=r"(?s)take-union.*Cannot instantiate typing\.Union"):
        run(toys.union)
    assert run(toys.union_left_out)["take-union"].parameters == {"Output": "Model"}


@pytest.mark.parametrize(
    ("pipeline", "text"),
    [
        (toys.twice, "task 'take' has artifact 1 .* as INPUT '(model|teacher)' and as '(model|teacher)'"),
        (toys.nested_twice, "task 'pair' has artifact 1 .* as INPUT '(first|second)' and as '(first|second)'"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_one_artifact_under_two_names_is_refused(run: Toys, pipeline: Any, text: str) -> None:
    with pytest.raises(LineageError, match=text):
        run(pipeline)


def test_the_cache_makes_one_artifact_of_two(run: Toys) -> None:
    with pytest.raises(LineageError, match="ALREADY_EXISTS"):
        run(toys.cached_twice)


def test_graphs_in_graphs(run: Toys) -> None:
    steps = run(toys.nested, text="x")
    assert steps["take inside"].parameters == {"Output": "inner: Model Model"}
    assert steps["take outside"].parameters == {"Output": "inner: Model Model"}
    inside = steps["take inside"].message["inputs"]["artifacts"]
    assert "type" in inside["model"]["artifacts"][0]
    assert "type" not in inside["teacher"]["artifacts"][0]  # it came through the graph


def test_a_graphs_optional_artifact_cannot_be_handed_on_when_it_is_left_out(run: Toys) -> None:
    with pytest.raises(DriverError, match="no input artifact 'second' for 'teacher'"):
        run(toys.nested_left_out)


def test_numbers_lists_and_structs(run: Toys) -> None:
    steps = run(toys.telling)
    first, second = (ast.literal_eval(f"[{steps[name].parameters['types']}]") for name in ("tell", "again"))
    assert first == [1, 3, [1, 2.5, "x"], {"a": {"b": 3}}, "none", None]
    assert type(first[0]) is int  # a whole float
    assert second[:4] == [1, 4, [1, 2.5, "x"], {"a": {"b": 3}}]
    assert len(second[4]) == len("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    assert second[5] == 7
    again = run(toys.telling, width=2.5, layers=[], options={})
    assert ast.literal_eval(f"[{again['tell'].parameters['types']}]") == [2.5, 3, [], {}, "none", None]


def test_lists_and_structs_through_graphs(run: Toys) -> None:
    steps = run(toys.nested_telling)
    inside, outside = (ast.literal_eval(f"[{steps[name].parameters['types']}]") for name in ("tell inside", "tell"))
    assert inside == [0.5, 2, ["a", 2], {"deep": [1]}, "none", None]
    assert outside == [3, 1, [["b"], 0.5], {"deep": [1]}, "none", None]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"width": "wide"}, "'width' is NUMBER_DOUBLE, but got 'wide'"),
        ({"layers": {}}, "'layers' is LIST"),
        ({"depth": 1}, "no parameter depth"),
    ],
)
def test_a_runs_parameters_are_checked(run: Toys, parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(DriverError, match=text):
        run(toys.telling, **parameters)


@pytest.mark.parametrize("value", [True, False])
def test_a_condition_chooses(run: Toys, value: bool) -> None:
    assert {*run(toys.choosing, value=value)} == {"answer", "yes" if value else "no"}


@pytest.mark.parametrize(
    ("task", "error", "text"),
    [
        (toys.not_a_number, StepError, "not-a-number.*NaN is no number"),
        (toys.null, LineageError, "null.*metadata 'framework' is null"),
        (toys.nothing, StepError, "nothing.*output parameter 'Output' was never written"),
        (toys.file_of_nothing, StepError, "output parameter 'number' was never written"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_step_may_not_write(run: Toys, task: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(toys.single(task))


def test_a_failing_step_ends_the_run_with_its_log(run: Toys) -> None:
    with pytest.raises(StepError, match=r"(?s)task fail .*ended with 1:.*no luck today"):
        run(toys.failing)


def test_the_cache_is_told_by_inputs_and_command(run: Toys) -> None:
    assert not any(step.cached for step in run(toys.right).values())
    assert all(step.cached for step in run(toys.right).values())
    assert not any(step.cached for step in run(toys.right, text="another").values())


@pytest.mark.parametrize(
    ("value", "found"),
    [(1.0, "1"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (0.5, "0.5"), (2**53 + 1, "9007199254740992")],
)
def test_numbers_on_the_wire(value: float, found: str) -> None:
    assert repr(wire(value)) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, [float("-inf")]])
def test_what_is_no_value(value: Any) -> None:
    with pytest.raises(ValueError, match="no"):
        wire(value)


def test_text_of_values() -> None:
    assert [as_text(each) for each in (1e-7, 5.0, True, None, ["a", 1.0])] == ["0.0000001", "5", "true", "", '["a",1]']
    assert as_type("x", 3, "STRING") == "3"
    with pytest.raises(ValueError, match="BOOLEAN"):
        as_type("x", 1, "BOOLEAN")


def test_metadata_as_the_store_keeps_it() -> None:
    given = {"a": 1.5, "b": False, "c": "text", "d": [True, None], "e": {"f": [1]}}
    assert stored(given) == {"a": 1.5, "b": 0, "c": "text", "d": {"list": [True, None]}, "e": {"struct": {"f": [1]}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"parameterValues": {"a": NaN}}',
        '{"artifacts": {"m": {"artifacts": [{"metadata": {"a": -Infinity}}]}}}',
        '{"parameterValues": {"a": 1, "a": 2}}',
        '{"models": {}}',
        "",
    ],
)
def test_what_is_no_executor_output(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- each has its own text
        read_output(text)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("inputs.parameter_values['a'] == true", True),
        ("!(inputs.parameter_values['a'] == true)", False),
        ("int(inputs.parameter_values['n']) != 3", False),
        ("inputs.parameter_values['s'] == 'x'", True),
        ("inputs.parameter_values['s'] == true", False),
        ("!(inputs.parameter_values['a'] == false) && int(inputs.parameter_values['n']) == 3", True),
    ],
)
def test_conditions(condition: str, found: bool) -> None:
    assert holds(condition, {"a": True, "n": 3.0, "s": "x"}) == found


@pytest.mark.parametrize(
    "condition", ["inputs.parameter_values['n'] > 1", "inputs.parameter_values['n'] == 3", "true || false"]
)
def test_other_conditions_are_not_supported(condition: str) -> None:
    with pytest.raises(NotImplementedError, match="not supported"):
        holds(condition, {"n": 3.0})
