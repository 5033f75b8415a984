"""What is read from a trial's output, against Katib's documented examples."""

import pytest
from kondense.katib.metrics import UNAVAILABLE, Observation, collect, number, picked
from kondense.katib.spec import DEFAULT_FILTER, Collector, Objective

STDOUT = Collector("StdOut", (DEFAULT_FILTER,), "", "TEXT")
JSON = Collector("File", (DEFAULT_FILTER,), "/m.log", "JSON")


def objective(metric: str = "loss", *additional: str) -> Objective:
    return Objective(metric, additional, {metric: "min"})


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("loss=0.3", "0.3"),
        ("loss = .98", ".98"),
        ("loss=-7.53e-05", "-7.53e-05"),
        ("loss=+1E0", "+1E0"),
        ("loss=1.23E10", "1.23E10"),
        ("step 3 loss=0.5 lr=0.1", "0.5"),
        ("loss=nan", ""),  # the filter matches with an empty value
        ("loss=inf", ""),
        ("loss=0.5%", "0.5"),
        ("loss: 0.3", UNAVAILABLE),
        ("val_loss=0.3", UNAVAILABLE),
        ("loss", UNAVAILABLE),
        ("", UNAVAILABLE),
        ("loss=٣", ""),  # Go's \d takes ASCII digits only
    ],
)
def test_the_default_filter(line, value):
    assert collect([line], STDOUT, objective())["loss"].latest == value


def test_min_max_and_latest_of_several_reports():
    found = collect(["loss=0.5", "loss=0.2", "loss=0.9", "loss=0.4"], STDOUT, objective())["loss"]
    assert found == Observation("0.2", "0.9", "0.4")
    assert [found.picked(strategy) for strategy in ("min", "max", "latest")] == ["0.2", "0.9", "0.4"]


@pytest.mark.parametrize("value", ["", "nan", "inf", "unavailable"])
def test_a_value_that_is_not_a_finite_number_is_none(value):
    assert picked({"loss": Observation(latest=value)}, objective())[1:] == (
        None,
        f"loss is no finite number: {value!r}",
    )
    assert picked({"loss": Observation("0.25", "0.5", value)}, objective()) == ({"loss": "0.25"}, 0.25, "")


@pytest.mark.parametrize("text", ["1" * 10**6 + "x", "1_" * 10**6, "." * 10**6, "1e" + "1" * 10**6 + "x"])
def test_a_long_text_that_is_no_number_is_told_at_once(text):
    assert number(text) is None  # hours, if the digits can be shared out in several ways


@pytest.mark.parametrize("text", ["1_000", "1_0.5", "0_1e3", "1.0_5"])
def test_a_number_may_have_single_underscores(text):
    assert number(text) == float(text)
    assert number(text.replace("_", "__")) is number(f"{text}_") is number(f"_{text}") is None


def test_two_reports_in_one_line():
    assert collect(["loss=0.5 loss=0.2"], STDOUT, objective())["loss"] == Observation("0.2", "0.5", "0.2")


def test_a_report_without_a_number_is_the_latest_only():
    found = collect(["loss=0.5", "loss=nan"], STDOUT, objective())["loss"]
    assert found == Observation("0.5", "0.5", "")
    assert collect(["loss=nan"], STDOUT, objective())["loss"].picked("min") == ""


def test_timestamps_decide_what_is_latest():
    lines = ["2024-01-01T10:00:02Z loss=0.2", "2024-01-01T10:00:01.5Z loss=0.9", "loss=0.1"]
    assert collect(lines, STDOUT, objective())["loss"].latest == "0.2"


def test_without_the_objective_nothing_is_available():
    found = collect(["accuracy=0.9"], STDOUT, objective("loss", "accuracy"))
    assert found["accuracy"].latest == UNAVAILABLE


def test_a_filter_of_ones_own():
    collector = Collector("StdOut", (r"\{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)\}",), "", "TEXT")
    found = collect(["{metricName: loss, metricValue: 0.12}", "loss=7"], collector, objective())
    assert found["loss"].latest == "0.12"


def test_json_lines_hold_strings():
    lines = ['{"loss": "0.12", "timestamp": 1700000001.5}', '{"loss": "0.3", "timestamp": "2020-01-01T00:00:00Z"}', ""]
    assert collect(lines, JSON, objective())["loss"] == Observation("0.12", "0.3", "0.12")
    assert collect(['{"loss": 0.12}'], JSON, objective())["loss"].latest == UNAVAILABLE


def test_the_digits_of_a_second_are_nanoseconds_to_katib():
    def latest(*times: str) -> str:
        lines = [f'{{"loss": "{i}", "timestamp": {time}}}' for i, time in enumerate(times)]
        return collect(lines, JSON, objective())["loss"].latest

    assert latest("1700000000.750001", "1700000000.9") == "0"  # 750 us and 9 ns
    assert latest("1700000000.9", "1700000000.25") == "1"  # equal microseconds: the last line
    assert latest("1700000001", "1700000000.999999") == "0"


def test_one_line_that_is_no_json_fails_the_file():
    assert collect(['{"loss": "1"}', "Traceback"], JSON, objective())["loss"].latest == UNAVAILABLE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("nan", None),
        ("inf", None),
        ("", None),
        (" 1", None),
        ("0x1.8p1", 3.0),
        ("-0X_1_0P-1", -8.0),
        ("0x.8p0", 0.5),
        ("1.2_5e1_0", 1.25e10),
        ("1e-400", 0.0),
        ("0x1.8", None),  # no exponent
        ("0x1p", None),
        ("1_.5", None),
        ("0x1__0p1", None),
        ("1e400", None),
        ("0x1p9999", None),
    ],
)
def test_number(text, value):
    """The values of Go 1.26's ParseFloat."""
    assert number(text) == value


@pytest.mark.parametrize("value", ["1e400", "0x1p9999", "+nan", "-nan", "0x1.8"])
def test_what_gos_parse_float_refuses_is_the_latest_only(value):
    found = collect([f'{{"loss": "{each}"}}' for each in ("0.5", value)], JSON, objective())["loss"]
    assert found == Observation("0.5", "0.5", value)


def test_a_first_nan_stays_the_smallest_and_the_largest():
    """As in trial_controller_util.go, where no number is smaller or larger than NaN."""
    lines = [f'{{"loss": "{value}"}}' for value in ("NaN", "0.5")]
    assert collect(lines, JSON, objective())["loss"] == Observation("NaN", "NaN", "0.5")


def test_a_control_character_is_part_of_the_name():
    collector = Collector("StdOut", (r"([\s\S]+)=(.+)",), "", "TEXT")
    assert collect(["\x1floss=0.5"], collector, objective())["loss"].latest == UNAVAILABLE
    assert collect(["\u3000loss\xa0=\x850.5"], collector, objective())["loss"].latest == "0.5"


def test_json_as_go_reads_it():
    assert collect(["null", '{"loss": "0.5"}'], JSON, objective())["loss"].latest == "0.5"
    assert collect([r'{"loss": "\ud800"}'], JSON, objective())["loss"].latest == "\ufffd"


@pytest.mark.parametrize(
    ("expression", "line", "value"),
    [
        (r"([[:alpha:]]+)=([[:digit:].]+)", "loss=0.25", "0.25"),
        (r"(\pL+)=(\pN+)", "loss=25", "25"),
        (r"(\w+)=([\d.]+)\z", "loss=0.25", "0.25"),
        (r"(?U)(loss)=(\d+)", "loss=25", "2"),  # ungreedy
        (r"(?i:(LOSS))=(\Q0.2\E)", "loss=0.25 loss=0x2", "0.2"),
        (r"(?P<name>loss)=(?P<value>\d\.\d+)", "loss=0.25", "0.25"),
        (r"(loss)=(\S+)", "loss=0.25\ud800", "0.25?"),  # a byte that is no UTF-8
    ],
)
def test_expressions_mean_what_they_mean_in_go(expression: str, line: str, value: str) -> None:
    collector = Collector("StdOut", (expression,), "", "TEXT")
    assert collect([line], collector, objective())["loss"].latest == value


def test_a_long_line_takes_time_in_proportion_to_it() -> None:
    """In Python's re 400,000 word characters take hours with Katib's own filter."""
    assert collect(["loss" + "a" * 400_000, "loss=0.5"], STDOUT, objective())["loss"].latest == "0.5"
    assert collect(["loss=0.5 " * 20_000], STDOUT, objective())["loss"].latest == "0.5"


@pytest.mark.parametrize(
    "time",
    [
        "2016-12-31T23:59:60Z",
        "2024-01-00T10:00:00Z",
        "2024-02-30T10:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T10:00:00+24:30",
        "0000-01-01T10:00:00Z",
        "yesterday",
        "1700000000000",
    ],
)
def test_a_time_that_does_not_exist_is_no_time(time: str) -> None:
    """Katib's collector reports such a line without its time, too: it comes before all that have one."""
    assert collect([f"{time} loss=0.5"], STDOUT, objective())["loss"].latest == "0.5"
    found = collect(["2024-01-01T10:00:00,5+01:00 loss=0.2", f"{time} loss=0.5"], STDOUT, objective())["loss"]
    assert found == Observation("0.2", "0.5", "0.2")


@pytest.mark.parametrize("time", ["1700000000000", "-1e300", '"2016-12-31T23:59:60Z"', "true", "null", "[]"])
def test_a_time_in_json_that_does_not_exist_is_no_time(time: str) -> None:
    lines = ['{"loss": "0.2", "timestamp": 1700000001.5}', f'{{"loss": "0.5", "timestamp": {time}}}']
    assert collect(lines, JSON, objective())["loss"].latest == "0.2"
    assert collect(lines[1:], JSON, objective())["loss"].latest == "0.5"


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e400", "1" + 400 * "0", "[" * 100_000])
def test_what_gos_json_refuses_invalidates_the_file(value: str) -> None:
    assert collect([f'{{"loss": "0.5", "gradient": {value}}}'], JSON, objective())["loss"].latest == UNAVAILABLE
