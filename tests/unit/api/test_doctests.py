"""The examples in the docstrings of every public name run, and give what they say."""

import doctest
import inspect
from pathlib import Path
from typing import Any

import kondense as kd
import pytest
from sklearn.datasets import load_digits

EXAMPLES = [*(name for name in kd.__all__ if inspect.isfunction(getattr(kd, name))), "Model", "Dataset"]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the module's docstring says the examples have: ``kd``, ``data`` and ``model``."""
    digits = load_digits()
    images = (digits.images / 16).astype("float32")
    data = kd.Dataset.from_arrays(
        train=(images[:1200], digits.target[:1200]), test=(images[1200:], digits.target[1200:])
    )
    public = {name: getattr(kd, name) for name in kd.__all__}
    return public | {"kd": kd, "data": data, "model": kd.train(data, "lenet300", epochs=2).model}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_public_function_runs(
    name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestFinder().find(getattr(kd, name), name, globs=dict(names))
    assert sum(len(each.examples) for each in examples) > 0, f"kd.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    log: list[str] = []
    for each in examples:
        runner.run(each, out=log.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(log)
