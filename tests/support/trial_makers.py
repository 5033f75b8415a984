"""A model as a trial leaves it, small, with the trial's name in its lineage."""

from pathlib import Path

from kondense.artifacts.model import Model, read_description, save_model
from kondense.networks.build import NetworkSpec, build


def write_trial_model(directory: Path, trial: str) -> None:
    """Write the Model artifact of a trial."""
    spec = NetworkSpec("lenet300", {"classes": 10, "channels": 1, "image_size": 16, "width": 0.05})
    metrics = {"validation_accuracy": 0.5, "parameters": 1000.0}
    record = {"stage": "train", "summary": trial, "config": {}, "inputs": {}, "metrics": metrics, "curves": []}
    save_model(directory, Model(module=build(spec, seed=0), network=spec, lineage=({**record, "versions": {}},)))


def trial_of(directory: Path) -> str:
    """Return whose model an artifact is."""
    return str(read_description(directory)["lineage"][0]["summary"])
