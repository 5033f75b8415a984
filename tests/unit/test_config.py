import argparse
import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kondense.config import Config, add_flags, flag, from_flags, option, outside, parse
from kondense.stages import STAGES

CHOICES = ("red", "green")


@dataclasses.dataclass(frozen=True)
class Example(Config):
    """One field of every kind."""

    count: int = option(3, "how many", interval="[1, 100]")
    unbounded: int = option(0, "any whole number", interval="(-inf, inf)")
    fraction: float = option(0.5, "share removed, 50% by default", interval="[0, 1)")
    share: float = option(0.5, "fraction removed", interval="[0, 1)")
    rate: float = option(0.1, "above zero", interval="(0, inf)")
    text: str = option("", "anything")
    colour: str = option("red", "one of two", choices=CHOICES)
    active: bool = option(False, "yes or no")


examples = st.builds(
    Example,
    count=st.integers(1, 100),
    unbounded=st.integers(),
    fraction=st.floats(0, 1, exclude_max=True),
    rate=st.floats(0, exclude_min=True, allow_infinity=False),
    text=st.text(),
    colour=st.sampled_from(CHOICES),
    active=st.booleans(),
)


def parser():
    made = argparse.ArgumentParser(exit_on_error=False)
    add_flags(made, Example)
    return made


@settings(deadline=None)
@given(examples)
def test_flags_give_the_config_back(config):
    flags = [f"{flag(name)}={value}" for name, value in config.to_dict().items()]
    assert from_flags(parser().parse_args(flags), Example) == config


@settings(deadline=None)
@given(examples)
def test_texts_give_the_config_back(config):
    assert Example.from_strings({name: str(value) for name, value in config.to_dict().items()}) == config


@settings(deadline=None)
@given(examples)
def test_json_gives_the_config_back(config):
    # KFP hands every number over as a JSON double.
    content = json.loads(json.dumps(config.to_dict()))
    if abs(config.unbounded) < 2**53:
        content |= {"count": float(config.count), "unbounded": float(config.unbounded)}
    assert Example(**content) == config


@settings(deadline=None)
@given(examples, examples)
def test_equal_configs_and_no_others_have_equal_digests(first, second):
    assert (first.digest() == second.digest()) == (first == second)
    assert first.digest() == dataclasses.replace(first).digest()


def test_flags_that_are_not_given_keep_their_defaults():
    assert from_flags(parser().parse_args([]), Example) == Example()
    assert from_flags(parser().parse_args(["--count", "7"]), Example) == Example(count=7)


@pytest.mark.parametrize("interval", ["[0, 1]", "[0, 1)", "(0, 1]", "(0, 1)", "[0, inf)", "(-inf, 1]"])
@settings(deadline=None)
@given(value=st.floats() | st.integers())
def test_intervals_are_those_of_mathematics(interval, value):
    low, high = (float(text) for text in interval[1:-1].split(","))
    inside = low < value < high or (value == low and interval[0] == "[") or (value == high and interval[-1] == "]")
    assert outside(value, interval) != inside


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"count": 0}, r"count must be in \[1, 100\], but got 0\."),
        ({"count": 101}, r"count must be in \[1, 100\], but got 101\."),
        ({"count": 2.5}, r"count must be int, but got 2\.5\."),
        ({"count": "2"}, r"count must be int, but got '2'\."),
        ({"count": True}, r"count must be int, but got True\."),
        ({"count": None}, r"count must be int, but got None\."),
        ({"count": math.inf}, r"count must be int, but got inf\."),
        ({"count": math.nan}, r"count must be int, but got nan\."),
        ({"fraction": 1}, r"fraction must be in \[0, 1\), but got 1\.0\."),
        ({"fraction": -0.1}, r"fraction must be in \[0, 1\), but got -0\.1\."),
        ({"fraction": math.nan}, r"fraction must be a number, but got nan\."),
        ({"fraction": True}, r"fraction must be float, but got True\."),
        ({"rate": 0}, r"rate must be in \(0, inf\), but got 0\.0\."),
        ({"rate": math.inf}, r"rate must be in \(0, inf\), but got inf\."),
        ({"rate": 10**400}, r"rate must be a number of at most 1\.8e\+308, but is larger\."),
        ({"text": 3}, r"text must be str, but got 3\."),
        ({"colour": "blue"}, r"colour must be one of green, red, but got 'blue'\."),
        ({"colour": "Gren"}, r"colour must be one of green, red, but got 'Gren' \(did you mean green\?\)\."),
        ({"share": 50}, r"share must be in \[0, 1\), but got 50\.0 \(a fraction: 0\.5 is 50 %\)\."),
        ({"share": 101}, r"share must be in \[0, 1\), but got 101\.0\."),
        ({"active": 1}, r"active must be bool, but got 1\."),
    ],
)
def test_a_wrong_value_is_one_line_with_rule_and_value(values, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        Example(**values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"count": "many"}, "count must be int, but got 'many'"),
        ({"count": "2.5"}, "count must be int, but got '2.5'"),
        ({"count": ""}, "count must be int, but got ''"),
        ({"rate": "fast"}, "rate must be float, but got 'fast'"),
        ({"rate": "nan"}, "rate must be a number, but got nan"),
        ({"active": "yes"}, "active must be one of false, true, but got 'yes'"),
        (
            {"cuont": "3"},
            r"unknown parameter 'cuont' of Example \(did you mean count\?\); the parameters are active, colour, count,",
        ),
    ],
)
def test_a_wrong_text_is_one_line_with_rule_and_value(values, text):
    with pytest.raises(ValueError, match=text):
        Example.from_strings(values)


@pytest.mark.parametrize("text", ["true", "True", "TRUE"])
def test_booleans_are_read_as_katib_and_python_write_them(text):
    assert parse("active", bool, text) is True
    assert parse("active", bool, text.lower().replace("true", "false")) is False


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example().count = 5


@pytest.mark.parametrize(
    ("kind", "field", "text"),
    [
        (float, option(0.5, "share removed"), "Bad.field is a number and must have an interval"),
        (int, option(1, "how many", interval="1 to 3"), "Bad.field is a number and must have an interval"),
        (str, option("", ""), r"Bad.field must be declared with option\(default, description\)"),
        (int, 3, r"Bad.field must be declared with option\(default, description\), but got 3"),
        (bool, dataclasses.field(default=True), r"Bad.field must be declared with option\(default, description\)"),
        (list, option("", "several"), "Bad.field must be int, float, str or bool, but got <class 'list'>"),
    ],
)
def test_a_field_that_forms_and_flags_cannot_describe_is_refused_with_its_class(kind, field, text):
    with pytest.raises(TypeError, match=text):
        dataclasses.dataclass(frozen=True)(type("Bad", (Config,), {"__annotations__": {"field": kind}, "field": field}))


def test_help_says_description_range_and_default():
    text = " ".join(parser().format_help().split())
    assert "--count int how many (in [1, 100]; default 3)" in text
    assert "share removed, 50% by default" in text
    assert "--colour str one of two (red, green; default 'red')" in text


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"trial", "train_node"}))  # they have flags that must be given
def test_every_stages_defaults_survive_texts(stage):
    config = STAGES[stage].config_class()
    assert type(config).from_strings({name: str(value) for name, value in config.to_dict().items()}) == config


def test_the_digest_is_the_same_in_every_process():
    code = "from kondense.data_prep.config import DataPrepConfig as C; print(C(seed=3).digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
