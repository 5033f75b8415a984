import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace

SPACE = [
    {
        "name": "lr",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-5", "max": "0.1", "distribution": "logUniform"},
    },
    {"name": "momentum", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.9", "step": "0.1"}},
    {"name": "width", "parameterType": "int", "feasibleSpace": {"min": "8", "max": "64", "step": "8"}},
    {"name": "batch", "parameterType": "discrete", "feasibleSpace": {"list": ["128", "32", "64.0"]}},
    {"name": "optimizer", "parameterType": "categorical", "feasibleSpace": {"list": ["sgd", "adam w", "10"]}},
]

PARAMETERS = [
    Parameter("a", "double", 0.0, 1.0),
    Parameter("b", "double", -3.0, 1e6),
    Parameter("c", "double", 1e-8, 1e3, distribution="logUniform"),
    Parameter("d", "double", -1.0, 1.0, distribution="normal"),
    Parameter("e", "double", 1e-4, 1.0, distribution="logNormal"),
    Parameter("f", "double", 0.1, 0.95, step=0.1),
    Parameter("g", "double", 0.01, 10.0, step=0.01, distribution="logUniform"),
    Parameter("h", "int", -5, 5),
    Parameter("i", "int", 1, 1000, distribution="logUniform"),
    Parameter("j", "int", 3, 100, step=7),
    Parameter("k", "int", 1, 50, distribution="normal"),
    Parameter("l", "discrete", values=("10", "2", "3.5")),
    Parameter("m", "categorical", values=("x", "y", "z")),
    Parameter("n", "int", 7, 7),
    Parameter("o", "double", 2.0, 2.0),
    Parameter("p", "int", 1, 1_000_000_000, distribution="logUniform"),
    Parameter("q", "int", 0, 2**53 - 1),
    Parameter("r", "int", -(2**52), 2**52 - 1),
    Parameter("s", "int", 1, 2**53 - 2, step=3),
    Parameter("t", "int", -(2**53), 2**53, step=3),
    Parameter("u", "int", 1, 2**53, distribution="logUniform"),
    Parameter("v", "int", -(2**53), 2**53, distribution="normal"),
    Parameter("w", "int", 5, 2**53, step=7, distribution="logNormal"),
    Parameter("x", "double", 0.0, 4.0, step=1e-15),
    Parameter("y", "double", 1e16, 1e16 + 100, step=0.1),
    Parameter("z", "double", 0.01, 10.0, step=1e-13, distribution="logUniform"),
]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
@given(unit=st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_strings_survive_the_trip_to_the_unit_cube(parameter: Parameter, unit: list[float]) -> None:
    texts = parameter.from_unit(np.array(unit))
    coordinates = parameter.to_unit(texts)
    assert ((coordinates >= 0) & (coordinates <= 1)).all()
    assert parameter.from_unit(coordinates) == texts
    for text in texts:
        if not parameter.values:
            assert parameter.low <= float(text) <= parameter.high
        if parameter.kind == "int":
            assert str(int(text)) == text
        if parameter.values:
            assert text in parameter.values


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_snap_gives_the_coordinate_of_the_string(parameter: Parameter) -> None:
    unit = np.random.default_rng(0).random(200)
    again = parameter.to_unit(parameter.from_unit(unit))
    assert parameter.snap(unit) == pytest.approx(again, abs=1e-6)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Parameter("x", "int", 1, 4), ["1", "2", "3", "4"]),
        (Parameter("x", "int", 1, 9, step=4), ["1", "5", "9"]),
        (Parameter("x", "int", 1, 8, step=4), ["1", "5"]),
        (Parameter("x", "double", 0.1, 0.5, step=0.1), ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        (Parameter("x", "double", 0.0, 0.3, step=0.1), ["0.0", "0.1", "0.2", "0.3"]),
        (Parameter("x", "discrete", values=("10", "9", "0.5")), ["0.5", "9", "10"]),
        (Parameter("x", "categorical", values=("b", "a")), ["b", "a"]),
    ],
)
def test_values_of_a_finite_parameter(parameter: Parameter, expected: list[str]) -> None:
    assert parameter.levels == len(expected)
    assert [parameter.level(index) for index in range(len(expected))] == expected
    ends = parameter.from_unit(np.array([0.0, 1.0]))
    assert ends == [expected[0], expected[-1]]


@pytest.mark.parametrize("low", [0, 1, -1, -(2**52), 2**52])
@pytest.mark.parametrize("span", [2**50 + 1, 2**51 - 1, 2**52 - 1, 2**53 - 1])
@pytest.mark.parametrize("step", [1, 3])
def test_huge_integers_are_told_apart(low: int, span: int, step: int) -> None:
    high = min(low + span, 2**53)
    parameter = Parameter("x", "int", low, high, step=step)
    count = (high - low) // step + 1
    assert parameter.levels == count
    rng = np.random.default_rng(0)
    places = [0, 1, 2, count // 2, count - 3, count - 2, count - 1, *map(int, rng.integers(0, count, 200))]
    texts = [str(low + place * step) for place in places]
    coordinates = parameter.to_unit(texts)
    assert parameter.from_unit(coordinates) == texts
    for place, coordinate in zip(places, coordinates.tolist(), strict=True):
        assert place <= Fraction(coordinate) * count < place + 1
    assert parameter.snap(coordinates).tolist() == coordinates.tolist()


def test_decimal_steps_finer_than_doubles_stay_apart() -> None:
    parameter = Parameter("x", "double", 1e16, 1e16 + 100, step=0.1)
    texts = [parameter.level(index) for index in range(1001)]
    assert [Decimal(text) for text in texts] == [Decimal(10) ** 16 + Decimal(index) / 10 for index in range(1001)]
    assert parameter.from_unit(parameter.to_unit(texts)) == texts
    fine = Parameter("x", "double", 0.0, 4.0, step=1e-15)
    odd = [f"{index}e-15" for index in range(3_999_999_999_999_000, 4 * 10**15)]
    assert [float(text) for text in fine.from_unit(fine.to_unit(odd))] == [float(text) for text in odd]


def test_the_whole_numbers_at_the_edges_are_as_likely_as_the_others() -> None:
    texts = Parameter("x", "int", 1, 4).from_unit(np.random.default_rng(0).random(40_000))
    counts = [texts.count(str(value)) for value in range(1, 5)]
    assert counts == pytest.approx([10_000] * 4, rel=0.05)


def test_a_logarithmic_int_has_the_chances_of_its_cells() -> None:
    unit = (np.arange(100_000) + 0.5) / 100_000
    texts = Parameter("x", "int", 1, 3, distribution="logUniform").from_unit(unit)
    edges = [1 / 1.5, 1.5, 2.5, 3 * 3 / 2.5]  # the outer cells are as wide, on the log axis, on both sides
    width = math.log(edges[-1] / edges[0])
    for value, (low, high) in enumerate(zip(edges, edges[1:], strict=False), start=1):
        assert texts.count(str(value)) / len(texts) == pytest.approx(math.log(high / low) / width, abs=1e-3)


def test_steps_on_a_logarithmic_axis_have_the_chances_of_their_cells() -> None:
    parameter = Parameter("x", "double", 1, 3, step=0.5, distribution="logUniform")
    bounds = [math.log(value) for value in (1.25, 1.75, 2.25, 2.75)]
    bounds = [2 * math.log(1) - bounds[0], *bounds, 2 * math.log(3) - bounds[-1]]  # the ends lie amid their cells
    drawn = [float(text) for text in parameter.from_unit((np.arange(100_000) + 0.5) / 100_000)]
    for value, low, high in zip((1, 1.5, 2, 2.5, 3), bounds, bounds[1:], strict=False):
        assert drawn.count(value) / len(drawn) == pytest.approx((high - low) / (bounds[-1] - bounds[0]), abs=1e-4)


def test_normal_is_the_cut_normal_of_scipy() -> None:
    from scipy import stats

    unit = np.linspace(0.01, 0.99, 25)
    ours = np.array(
        [float(text) for text in Parameter("x", "double", -1.0, 5.0, distribution="normal").from_unit(unit)]
    )
    assert ours == pytest.approx(stats.truncnorm.ppf(unit, -3, 3, loc=2.0, scale=1.0), abs=1e-8)
    logarithms = np.log(
        [float(text) for text in Parameter("x", "double", 1e-3, 1.0, distribution="logNormal").from_unit(unit)]
    )
    middle, scale = math.log(1e-3) / 2, -math.log(1e-3) / 6
    assert logarithms == pytest.approx(stats.truncnorm.ppf(unit, -3, 3, loc=middle, scale=scale), abs=1e-8)


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (Parameter("x", "double", 0.1, 0.9), ("0.1", "0.5", "9e-1"), ("0.09", "0.91", "nan", "", "x")),
        (Parameter("x", "int", -3, 3), ("-3", "0", "3"), ("-4", "4", "inf")),
        (Parameter("x", "int", 0, 2**53), ("0", str(2**53), "9.007199254740992e15"), (str(2**53 + 1), "-1")),
        (Parameter("x", "discrete", values=("10", "2")), ("10", "2"), ("10.0", "5")),
        (Parameter("x", "categorical", values=("b", "a")), ("a", "b"), ("", "c", "A")),
    ],
)
def test_what_a_parameter_contains(parameter: Parameter, inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    assert [parameter.contains(text) for text in inside] == [True] * len(inside)
    assert [parameter.contains(text) for text in outside] == [False] * len(outside)
    assert parameter.ordered is (parameter.kind != "categorical")


@pytest.mark.parametrize("distribution", ["uniform", "logUniform", "normal", "logNormal"])
@pytest.mark.parametrize("step", [None, 0.5])
def test_a_range_of_one_value_is_that_value(distribution: str, step: float | None) -> None:
    for kind, value in (("double", 2.5), ("int", 7.0)):
        parameter = Parameter(
            "x", kind, value, value, step=step if kind == "double" else None, distribution=distribution
        )
        assert parameter.levels == 1
        assert {float(text) for text in parameter.from_unit(np.linspace(0, 1, 5))} == {value}
        assert parameter.to_unit([str(value)]).tolist() == [0.5]


def test_from_katib_reads_an_experiments_parameters() -> None:
    space = SearchSpace.from_katib(SPACE)
    assert space.names == ("lr", "momentum", "width", "batch", "optimizer")
    assert space["momentum"].levels == 9
    assert space.size is None
    assert space.without("lr").size == 9 * 8 * 3 * 3
    rows = space.sample(np.random.default_rng(0), 50)
    configurations = space.from_unit(rows)
    assert space.from_unit(space.to_unit(configurations)) == configurations
    assert {configuration["batch"] for configuration in configurations} == {"128", "32", "64.0"}


def test_points_enumerate_the_space() -> None:
    space = SearchSpace.from_katib(SPACE).without("lr")
    points = {tuple(space.point(index).values()) for index in range(space.size or 0)}
    assert len(points) == space.size


def katib(kind: str, **feasible: object) -> list[dict[str, object]]:
    return [{"name": "x", "parameterType": kind, "feasibleSpace": feasible}]


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ([], "at least one parameter"),
        (katib("double", min="1", max="2") * 1001, "at most 1,000 parameters, but got 1,001"),
        (katib("categorical", list=["a"] * 5001) * 2, "at most 10,000 values, but got 10,002"),
        (katib("double", min="1", max="2") * 2, "unique, but 'x' occurs twice"),
        (katib("float", min="1", max="2"), "one of double, int, discrete, categorical, but got 'float'"),
        (katib("double", min="2", max="1"), "min must not be above max, but got min=2, max=1"),
        (katib("double", min="1"), "needs min and max, but got min=1.0, max=None"),
        (katib("double", min="low", max="1"), "min must be a number, but got 'low'"),
        (katib("double", min="0", max="inf"), "max must be finite, but got inf"),
        (katib("int", min="1", max="2.5"), "max of an int parameter must be an integer, but got 2.5"),
        (katib("double", min="0", max="1", step="0"), "step must be above 0, but got 0"),
        (katib("double", min="0", max="1", step="-0.5"), "step must be above 0, but got -0.5"),
        (katib("double", min="0", max=str(2**53), step="1"), "at most 2.53 values, but step is 1"),
        (katib("int", min="0", max=str(2**53 + 2)), "max of an int parameter must lie within -2.53 and 2.53"),
        (katib("double", min="-1e308", max="1e308"), "max - min must be finite, but got min=-1e.308, max=1e.308"),
        (katib("int", min="0", max=str(2**53 + 1)), "within -2.53 and 2.53, but got 9007199254740993"),
        (katib("int", min=str(-(2**53) - 1), max="0"), "within -2.53 and 2.53, but got -9007199254740993"),
        (katib("int", min="0", max="9" * 400), "max must be finite, but got inf"),
        (
            katib("int", min="-1e308", max="1"),
            "min of an int parameter must lie within -2.53 and 2.53, but got -1e.308",
        ),
        (katib("double", min="0", max="1e308", step="1e-300"), "at most 2.53 values, but step is 1e-300"),
        (katib("double", min="0", max="1", step="1e-320"), "at most 2.53 values, but step is"),
        (
            katib("double", min="0", max="1", distribution="logUniform"),
            "min must be above 0 with distribution logUniform",
        ),
        (katib("double", min="0", max="1", distribution="flat"), "distribution must be one of .* but got 'flat'"),
        (katib("double", min="0", max="1", list=["1"]), "needs min and max, not a list"),
        (katib("double", min="0", max="1", maximum="1"), "feasibleSpace takes .*, but got 'maximum'"),
        (katib("categorical"), "needs a non-empty list"),
        (katib("categorical", list=["a", "b", "a"]), "must not repeat a value, but 'a' occurs twice"),
        (katib("categorical", list=[True, False]), "must be a string, but got True"),
        (katib("discrete", list=["1", "1.0"]), "must not repeat a value, but '1.0' occurs twice"),
        (katib("discrete", list=["1", "two"]), "must be a finite number, but got 'two'"),
        (katib("discrete", list=["1"], min="1"), "needs a list, not min, max or step"),
    ],
)
def test_a_broken_rule_is_named_with_its_value(parameters: list[dict[str, object]], rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as error:
        SearchSpace.from_katib(parameters)
    assert "\n" not in str(error.value)


def test_a_string_that_is_no_value_is_refused() -> None:
    space = SearchSpace.from_katib(SPACE)
    good = space.from_unit(np.full((1, 5), 0.5))[0]
    for name, wrong in (("lr", "nan"), ("lr", "fast"), ("optimizer", "lion"), ("batch", "33")):
        with pytest.raises(ValueError, match=f"parameter '{name}'.*{wrong}"):
            space.to_unit([good | {name: wrong}])
