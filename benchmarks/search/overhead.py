"""What a local search costs beside the training of its trials: wall time over training time divided by the parallelism.

The trials are Kondense's own command with LeNet-5 on a part of Fashion-MNIST, PARALLEL at a time, and train about two
seconds each on a free core. Training time is what the epochs took, by the trials' own lines; all else is overhead: the
start of the trial, reading the data, measuring and keeping the model, and the search itself.
"""

import io
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run as data_prep
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import run
from rich.console import Console

TRIALS, PARALLEL = 24, 2
IMAGES, EPOCHS = 6_000, 3  # of which a twelfth is the validation split
EPOCH = re.compile(r"^epoch \d+/\d+ .*images_per_s=([\d.]+)", re.MULTILINE)
FLAGS = {"train.network": "lenet5", "train.epochs": EPOCHS, "metrics": "validation_accuracy", "device": "cpu"}


def measure(trials: int = TRIALS) -> dict[str, Any]:
    """Run the search and return its wall time and the training time of its trials, seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        data_prep(DataPrepConfig(dataset_name="fashion_mnist", limit=IMAGES), dataset_dir=directory / "dataset")
        file = directory / "experiment.yaml"
        file.write_text(yaml.safe_dump(experiment(directory, trials)))
        started = time.perf_counter()
        result = run(file, directory / "out", display=Display(Console(file=io.StringIO())))
        wall_s = time.perf_counter() - started
        if result.trials != trials or result.exit_code:
            raise RuntimeError(f"the search must end with {trials} trials, but: {result.reason}")
        logs = [path.read_text() for path in sorted((directory / "out" / "trials").glob("*/output.log"))]
    images = IMAGES - IMAGES // 12
    training_s = [sum(images / float(rate) for rate in EPOCH.findall(log)) for log in logs]
    return {
        "trials": trials,
        "parallel": PARALLEL,
        "wall_s": wall_s,
        "training_s": sum(training_s),
        "training_s_of_a_trial": sum(training_s) / trials,
        "ratio": wall_s / (sum(training_s) / PARALLEL),
    }


def experiment(directory: Path, trials: int) -> dict[str, Any]:
    """Return an Experiment that draws learning rates."""
    flags = FLAGS | {"dataset-uri": directory / "dataset", "store-uri": directory / "store"}
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    arguments += ["--train.learning_rate=${trialParameters.lr}", "--trial-name=${trialParameters.name}"]
    container = {"name": "trial", "image": "kondense", "command": ["python3", "-m", "kondense.cli", "trial"]}
    pod = {"restartPolicy": "Never", "containers": [container | {"args": arguments}]}
    references = {"lr": "lr", "name": "${trialSpec.Name}"}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "overhead"},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "validation_accuracy"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": PARALLEL,
            "maxTrialCount": trials,
            "maxFailedTrialCount": 0,
            "metricsCollectorSpec": {"collector": {"kind": "Push"}},
            "parameters": [
                {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.01", "max": "0.1"}},
            ],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [{"name": name, "reference": each} for name, each in references.items()],
                "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}},
            },
        },
    }


def table(report: dict[str, Any]) -> list[str]:
    """Return the lines of a report."""
    each, parallel = report["training_s_of_a_trial"], report["parallel"]
    return [
        f"{report['trials']} trials, {parallel} at a time, of {each:.2f} s of training:",
        f"wall time {report['wall_s']:.1f} s = {report['ratio']:.2f} of the training time over {parallel}",
    ]
