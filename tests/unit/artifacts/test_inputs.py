"""An input that is gone is told with the remedy; all else is told as it was."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from kondense.artifacts.inputs import fetched
from kondense.files import ArtifactError, read_json


def artifact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), uri=f"minio://b/{path.name}")


def test_the_input_that_is_gone_and_the_remedy_are_named(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").touch()
    inputs = {"dataset": artifact(tmp_path / "dataset"), "model": artifact(tmp_path / "model"), "teacher": None}
    with (
        pytest.raises(ArtifactError, match="input dataset is gone: .*kondense submit --no-cache.*minio://b/dataset"),
        fetched(**inputs),
    ):
        read_json(tmp_path / "dataset" / "dataset.json", format_version=1)
    with pytest.raises(ArtifactError, match="must hold a file model.json"), fetched(**inputs):  # damaged, not gone
        read_json(tmp_path / "model" / "model.json", format_version=1)
    with pytest.raises(FileNotFoundError, match="elsewhere"), fetched(**inputs):
        raise FileNotFoundError("elsewhere")
    with pytest.raises(ValueError, match="bits must"), fetched(**inputs):
        raise ValueError("bits must be 8")
