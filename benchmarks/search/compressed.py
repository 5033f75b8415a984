"""The front of compressed models that a search finds, beside the candidates of a run, with as many epochs.

Both start from one teacher. The candidates are those of `kondense run` with a profile's own epochs; steps that they
share are trained once. The search is that of manifests/experiments/compression.yaml, and ends with the last trial that
fits into the epochs that the candidates took: epochs are counted by the lines of what was trained, a promoted trial's
resumed ones once. The front is chosen by the search's own metrics, of the validation split. All models are then
measured together: accuracy on the test split, bytes of weights.kz, latency in turns.

The hypervolume is that of three numbers, each in its own unit and better when larger: points of accuracy above POINTS
below the teacher, halvings of the teacher's bytes, halvings of its latency. Its reference is a model of the teacher's
size and speed and POINTS less accuracy.
"""

import contextlib
import dataclasses
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from kondense.artifacts.model import Model, load_model
from kondense.candidates import STANDARD, TEACHER
from kondense.codec.model_file import pack_model
from kondense.data.dataset import Dataset, load_dataset
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run as data_prep
from kondense.export.onnx import export_onnx
from kondense.logging import to_stdout
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.latency import measure_latency, open_session
from kondense.profiles import PROFILES
from kondense.recipes import SAME_NETWORK, parse_recipe
from kondense.search.pareto import hypervolume, nondominated
from kondense.train.config import TrainConfig
from kondense.train.stage import run as train
from kondense.trial.config import TrialConfig
from kondense.trial.stage import run as trial
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import run as search
from rich.console import Console

MANIFEST = Path("manifests/experiments/compression.yaml")
NETWORKS = ("lenet5", "resnet8")
POINTS = 10.0  # below the teacher's accuracy, %, at which the hypervolume begins
BATCH_OF_TRIALS = 4  # trials by which a search goes on until it has taken its epochs
VALIDATION = 4  # one in so many training images chooses the front
LATENCY_S = 20.0  # of measuring, all models together
EPOCH = re.compile(r"^epoch \d+/", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One comparison: the network, how much is trained, and where its files are."""

    network: str
    directory: Path
    images: int = 4_000
    teacher_epochs: int = 20
    profile: str = "full"
    seed: int = 0

    @property
    def dataset(self) -> Path:
        return self.directory.parent / f"fashion_mnist-{self.images}"

    @property
    def teacher(self) -> Path:
        return self.directory / TEACHER

    def prepare(self) -> None:
        """Make the data set and the teacher, unless they are there."""
        if not self.dataset.exists():
            held_out = self.images // VALIDATION
            config = DataPrepConfig(dataset_name="fashion_mnist", limit=self.images, validation_size=held_out)
            data_prep(config, dataset_dir=self.dataset)
        if not self.teacher.exists():
            training = TrainConfig(network=self.network, epochs=self.teacher_epochs, device="cpu", seed=self.seed)
            train(training, dataset_dir=self.dataset, model_dir=self.teacher)


def measure(settings: Iterable[Setting]) -> dict[str, Any]:
    """Return, by network, the models of both with their figures, the epochs and the hypervolumes.

    What is finished is kept in the settings' directories: the same call goes on where it was stopped.
    """
    return {setting.network: _measure(setting) for setting in settings}


def _measure(setting: Setting) -> dict[str, Any]:
    setting.prepare()
    candidates = [_candidate(setting, name, recipe) for name, recipe in STANDARD.items()]
    budget = sum(done["epochs"] for done in candidates)
    found, epochs = _search(setting, budget)
    models = {TEACHER: setting.teacher}
    models |= {done["name"]: setting.directory / "candidates" / "trials" / done["name"] for done in candidates}
    models |= {name: setting.directory / "search" / "store" / "trials" / name for name in found}
    figures = _figures({name: load_model(path) for name, path in models.items()}, load_dataset(setting.dataset))
    groups = {"candidates": [done["name"] for done in candidates], "search": list(found)}
    volumes = {
        group: hypervolume(gains(figures[TEACHER], [figures[name] for name in names]), np.zeros(3))
        for group, names in groups.items()
    }
    return {
        "setting": {key: value for key, value in vars(setting).items() if key != "directory"},
        "epochs": {"candidates": budget, "search": epochs},
        "figures": figures,
        "groups": groups,
        "found": found,
        "hypervolume": volumes,
        "ratio": volumes["search"] / volumes["candidates"],
    }


def gains(teacher: Mapping[str, float], figures: Iterable[Mapping[str, float]]) -> np.ndarray:
    """Return the three numbers of each model, negated so that smaller is better, [models, 3]."""
    rows = [
        [
            each["accuracy"] - (teacher["accuracy"] - POINTS),
            math.log2(teacher["bytes"] / each["bytes"]),
            math.log2(teacher["latency_ms"] / each["latency_ms"]),
        ]
        for each in figures
    ]
    return -np.array(rows)


def profiled(recipe: str, profile: str) -> str:
    """Return a recipe with the epochs, steps and warm-up that a run with the profile gives its steps."""
    parts: list[str] = []
    for step in parse_recipe(recipe):
        implied = SAME_NETWORK if parts else {}  # of a later distill, which must not state them
        stated = {name: value for name, value in step.settings.items() if name not in implied}
        settings = {**PROFILES[profile].get(step.step, {}), **stated}
        parts.append(":".join([step.stage, *(f"{name}={value}" for name, value in settings.items())]))
    return " > ".join(parts)


def _candidate(setting: Setting, name: str, recipe: str) -> dict[str, Any]:
    """Make a candidate by a trial of its recipe, and return its name and the epochs it took."""
    kept = setting.directory / "candidates" / f"{name}.json"
    if kept.exists():
        done: dict[str, Any] = json.loads(kept.read_text())
        return done
    text = profiled(recipe, setting.profile)
    config = TrialConfig(
        dataset_uri=str(setting.dataset),
        store_uri=str(setting.directory / "candidates"),
        trial_name=name,
        teacher_uri=str(setting.teacher),
        recipe=text,
        metrics="validation_accuracy",
        settings=json.dumps({"train.network": setting.network}),
        device="cpu",
        seed=setting.seed,
    )
    output = io.StringIO()
    with contextlib.redirect_stdout(output), to_stdout():
        trial(config)
    done = {"name": name, "recipe": text, "epochs": len(EPOCH.findall(output.getvalue()))}
    kept.write_text(json.dumps(done))
    return done


def _search(setting: Setting, budget: int) -> tuple[dict[str, Any], int]:
    """Search until the budget of epochs is taken; return the front's trials with their parameters, and the epochs."""
    document = yaml.safe_load(MANIFEST.read_text())
    (container,) = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    networks = {f"--train.network={name}" for name in NETWORKS}
    container["args"] = [each for each in container["args"] if each not in networks]
    container["args"] += [f"--train.network={setting.network}", "--device=cpu", f"--seed={setting.seed}"]
    file, output = setting.directory / "experiment.yaml", setting.directory / "search"
    variables = {"DATASET_URI": str(setting.dataset.resolve()), "TEACHER_URI": str(setting.teacher.resolve())}
    count, trials, epochs = 0, [], 0
    while epochs <= budget:
        count += BATCH_OF_TRIALS
        document["spec"] |= {"parallelTrialCount": 1, "maxTrialCount": count, "maxFailedTrialCount": count}
        file.write_text(yaml.safe_dump(document))
        result = search(file, output, 1, overrides=variables, display=Display(Console(file=io.StringIO())))
        trials = json.loads(result.results_file.read_text())["trials"]
        epochs = sum(_epochs(output, each["name"]) for each in trials)
    while epochs > budget:
        epochs -= _epochs(output, trials.pop()["name"])
    done = [each for each in trials if each["status"] == "succeeded" and "latency_ms" in each["metrics"]]
    signs = {"validation_accuracy": -1.0, "size_bytes": 1.0, "latency_ms": 1.0}
    losses = np.array([[sign * float(each["metrics"][key]) for key, sign in signs.items()] for each in done])
    mask = nondominated(losses)
    return {each["name"]: each["assignments"] for each, best in zip(done, mask, strict=True) if best}, epochs


def _epochs(output: Path, name: str) -> int:
    return len(EPOCH.findall((output / "trials" / name / "output.log").read_text()))


def _figures(models: Mapping[str, Model], dataset: Dataset) -> dict[str, dict[str, float]]:
    images_NCHW = dataset.normalise(dataset.validation.images[:1]).numpy()
    sessions = {name: open_session(export_onnx(model, dataset)) for name, model in models.items()}
    latencies = measure_latency(sessions, images_NCHW, seconds=LATENCY_S, warmup_seconds=2.0)
    return {
        name: {
            "accuracy": 100.0 * accuracy(predict(model.module.eval(), dataset.test, dataset), dataset.test.labels),
            "bytes": float(len(pack_model(model))),
            "latency_ms": latencies[name].median_ms,
        }
        for name, model in models.items()
    }


def table(report: Mapping[str, Any]) -> list[str]:
    """Return the lines of a report."""
    lines = [f"{'network':<10}{'':<13}{'epochs':>8}{'models':>8}{'hypervolume':>13}{'ratio':>8}"]
    for network, found in report.items():
        for group, names in found["groups"].items():
            ratio = f"{found['ratio']:.2f}" if group == "search" else ""
            figures = f"{found['epochs'][group]:>8}{len(names):>8}{found['hypervolume'][group]:>13.1f}{ratio:>8}"
            lines.append(f"{network:<10}{group:<13}{figures}")
    return lines
