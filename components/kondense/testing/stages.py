"""The conformance suite of stages."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.model import save_model
from kondense.config import Config
from kondense.data.dataset import save_dataset
from kondense.files import sha256
from kondense.scratch import scratch_directory
from kondense.stages import Artifact, Stage, load
from kondense.testing.models import NETWORKS, small_dataset, small_model

MADE = ("Dataset", "Model")  # inputs that the suite can provide


def check_stage(stage: Stage, config: Mapping[str, Any] | None = None) -> None:
    """Check a stage's entry, and run it if its inputs are data sets and models.

    Args:
        stage: the stage.
        config: values of its Config for the run, such as few epochs; the defaults of the others.

    Raises:
        AssertionError: a rule is broken; the text names it.
        InputError: a value of the Config breaks a rule.
    """
    assert issubclass(stage.config_class, Config), f"config must name a kondense.config.Config, but is {stage.config}"
    made = stage.config_class(**(config or {}))
    assert stage.config_class.from_strings({k: str(v) for k, v in made.to_dict().items()}) == made, (
        "the fields of a Config must be int, float, str or bool, so that flags can set them"
    )
    function = load(stage.run)
    parameters = inspect.signature(function).parameters
    for artifact in stage.directories:
        assert artifact.directory in parameters, f"run must have a parameter {artifact.directory} for {artifact.name}"
    if all(artifact.type in MADE for artifact in stage.inputs):
        with scratch_directory("testing") as scratch:
            _check_run(stage, function, made, scratch)


def _check_run(stage: Stage, function: Any, config: Config, scratch: Path) -> None:
    inputs: dict[str, Any] = {artifact.directory: _make(artifact, scratch) for artifact in stage.inputs}
    before = _digests(scratch)
    digests = []
    for attempt in ("first", "second"):
        outputs = {item.directory: scratch / attempt / item.name for item in stage.directories if item in stage.outputs}
        for directory in outputs.values():
            directory.parent.mkdir(parents=True, exist_ok=True)
        metrics = function(config, **inputs, **outputs)
        for name, directory in outputs.items():
            assert directory.is_dir() and any(directory.iterdir()), f"run must write {name}, but did not"
        assert all(isinstance(value, int | float) for value in metrics.values()), f"metrics must be numbers: {metrics}"
        digests.append({path.relative_to(scratch / attempt): sha256(path) for path in _files(scratch / attempt)})
    changed = [path for path, digest in before.items() if not path.exists() or sha256(path) != digest]
    assert not changed, f"run must not change its inputs, but changed {changed}"
    assert digests[0] == digests[1], "run must write the same outputs for the same inputs"


def _make(artifact: Artifact, scratch: Path) -> Any:
    """Write an input, and return its directory, or a list of one if the stage takes several."""
    directory = scratch / "inputs" / artifact.name
    if artifact.type == "Dataset":
        save_dataset(directory, small_dataset())
    else:
        save_model(directory, small_model(NETWORKS[1]))
    return [directory] if artifact.several else directory


def _digests(directory: Path) -> dict[Path, str]:
    return {path: sha256(path) for path in _files(directory)}


def _files(directory: Path) -> Iterable[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
