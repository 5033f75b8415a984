"""YAML that would take the machine is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kondense.errors import InputError
from kondense.katib.yaml_text import Dumper, quoted, read_documents, read_file


def aliases(levels: int) -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (aliases(9), "at most 100,000 values with its aliases, but has"),
        (merges(9), "at most 100,000 values with its aliases, but has"),
        ("a: &a [*a]", "without an alias of itself"),
        ("[" * 200 + "]" * 200, "at most 100 levels"),
        ("[" * 1000, "at most 100 levels"),
        ("[" * 200_000, "at most 100 levels"),  # libyaml's composer would overflow the stack
        ("{a: " * 1000, "at most 100 levels"),
        ("- " * 3000, "at most 100 levels"),
        ("a: [1", "must be YAML"),
        (
            "a: &a " + "k" * 1_000_000 + "\nb: [" + "*a," * 90_000 + "]",
            "67,108,864 characters with its aliases, but has 9",
        ),
        ("".join(f"{'  ' * i}{'k' * 900}:\n" for i in range(90)) + "  " * 90 + f"[{'1,' * 9000}]", "paths of at most"),
        ("a: !!timestamp 2024-01-01", "values that JSON has, but one has the tag 'timestamp'"),
        ("a: !!binary aGk=", "values that JSON has, but one has the tag 'binary'"),
        ("a: !!set {b, c}", "values that JSON has, but one has the tag 'set'"),
        ("a: !!python/object/apply:os.system [ls]", "values that JSON has, but one has the tag 'python/object/apply:"),
        ("!a\n- 1", "values that JSON has, but one has the tag '!a'"),
        ("a: .inf", "no number of JSON"),
        ("a: !!float '.nan'", "no number of JSON"),
        ("a: !!int 1.5", "'1.5' is no int"),
        ("a: !!bool 3", "'3' is no bool"),
        ("{[a]: b}", "unhashable key"),
    ],
)
def test_it_is_refused_in_one_line(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        read_documents(text)
    assert "\n" not in str(caught.value)


def test_documents_aliases_and_merge_keys_are_read() -> None:
    text = "---\nbase: &base {x: 1}\nother: {<<: *base, z: 2}\n---\n\n---\n[a, b]\n"
    assert read_documents(text) == [{"base": {"x": 1}, "other": {"x": 1, "z": 2}}, ["a", "b"]]


def test_values_are_those_that_kubectl_makes_of_them() -> None:
    """Dates and keys without quotes are texts in what `kubectl apply` sends, as in sigs.k8s.io/yaml."""
    text = "{a: 2024-01-01, b: 2024-13-45T10:00:00Z, 2: x, true: y, 1.5: z, c: 1.5, d: 0x10, e: yes, f: ~}"
    assert read_documents(text) == [
        {"a": "2024-01-01", "b": "2024-13-45T10:00:00Z", "2": "x", "true": True, "1.5": "z"}
        | {"c": 1.5, "d": 16, "e": True, "f": None}
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("-.5", -0.5), ("5.", 5.0), ("+.5e3", 500.0), ("1.5e-3", 0.0015)),
        *(
            ("017", 15),
            ("0o17", 15),
            ("08", 8.0),
            ("0b11", 3),
            ("0B2", "0B2"),
            ("+0x1F", 31),
            ("-0b11", -3),
            ("0x", "0x"),
        ),
        *(("1_000", 1000), ("1_0.5", 10.5), ("_1", "_1"), ("12:30:45", "12:30:45"), ("0x1p3", "0x1p3"), ("1e", "1e")),
        *(
            ("y", True),
            ("N", False),
            ("Off", False),
            ("oN", "oN"),
            ("-y", "-y"),
            ("nULL", "nULL"),
            ("~", None),
            ("=", "="),
        ),
        *(("18446744073709551615", 2**64 - 1), ("-9223372036854775809", float(-(2**63))), ("1e400", "1e400")),
        *(("!!float 3", 3.0), ("!!float '1e-3'", 0.001), ("!!bool y", True), ("!!str 1", "1"), ("'1e-3'", "1e-3")),
        *(
            ("9" * 400, "9" * 400),
            ("9" * 30, 1e30),
            ("0x" + "f" * 5000, "0x" + "f" * 5000),
            ("1" + ":1" * 5, "1:1:1:1:1:1"),
        ),
    ],
)
def test_plain_scalars_are_what_kubectl_takes_them_for(text: str, value: object) -> None:
    """The values of sigs.k8s.io/yaml v1.6, run on each of these."""
    [document] = read_documents(f"a: {text}")
    assert document == {"a": value}
    assert type(document["a"]) is type(value)


TEXTS = [
    "1e-3",
    "y",
    "n",
    "0o17",
    "08",
    "1E5",
    "0O7",
    "x",
    "yes",
    "1",
    "",
    "12:30",
    "a: b",
    "2024-01-01",
    "1_0.5",
    ".1_0",
]


@pytest.mark.parametrize(
    "dump", [lambda value: quoted(yaml.safe_dump(value)), lambda value: yaml.dump(value, Dumper=Dumper)]
)
def test_texts_stay_texts_in_what_is_written(dump: Callable[[object], str]) -> None:
    document = {
        "list": TEXTS,
        "n": {"y": "n", "long": "x " * 90 + "1e-3", "lines": "1e-3\ny\n"},
        "flow": [[], {}, 1.5, True],
    }
    assert read_documents(dump(document)) == [document]
    assert yaml.safe_load(dump(document)) == document


def test_a_written_value_is_not_quoted_without_need() -> None:
    text = "# a comment\na: [1e-3, 'y', x]\nb: 1e-3  # y\nn: |\n  1e-3\n"
    assert quoted(text) == "# a comment\na: ['1e-3', 'y', x]\nb: '1e-3'  # y\n'n': |\n  1e-3\n"


def test_errors_of_a_file_name_it(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for content, rule in ((b"a: [", "must be YAML"), (b"\xff", "must be UTF-8"), (b"[a, b]", "at most 2 values")):
        file.write_bytes(content)
        with pytest.raises(InputError, match=rule) as caught:
            read_file(file, most=2)
        assert str(caught.value).startswith(f"{file} must be ") and "\n" not in str(caught.value)
    assert read_file(file, most=3) == [["a", "b"]]
