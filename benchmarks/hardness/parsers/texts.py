"""Texts: JSON, Experiments, metrics, parameters."""

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.hardness.parsers.parser import REPOSITORY, Parser, as_json, written


def _any_json(content: bytes, _: Path) -> object:
    from kondense.json_text import json_value

    return json_value(content, "file")


def _experiments(_: Path) -> list[bytes]:
    return [
        path.read_bytes()
        for path in sorted((REPOSITORY / "manifests/experiments").glob("*.yaml"))
        if "kustom" not in path.name
    ]


def _read_experiment(path: Path) -> object:
    from kondense.katib.spec import load
    from kondense.katib.template import render
    from kondense_pipelines.local_search.local_rules import broken

    experiment = load(path)
    if broken(experiment.document):
        return None
    values = {
        each["name"]: str(each["feasibleSpace"].get("min", "x")) for each in experiment.document["spec"]["parameters"]
    }
    return render(experiment, "t", values, environment={})


def _metric_lines(_: Path) -> list[bytes]:
    text = "epoch 1 acc=0.5 loss=1e-3\n2024-01-01T00:00:00Z acc=0.91\nacc = nan\n{'x': 1} acc=-1.5E+3\n"
    report = '{"timestamp": "2024-01-01T00:00:00.5Z", "acc": "0.5", "loss": "0.1"}\n{"acc": "0.7"}\n'
    return [text.encode(), report.encode()]


def _read_metrics(content: bytes, _: Path) -> None:
    from kondense.katib.metrics import collect, picked
    from kondense.katib.spec import DEFAULT_FILTER, Collector, Objective

    objective = Objective("acc", ("loss",), {"acc": "max", "loss": "latest"})
    lines = content.decode(errors="replace").splitlines()
    for collector in (Collector("StdOut", (DEFAULT_FILTER,), "", "TEXT"), Collector("File", (), "/f", "JSON")):
        picked(collect(lines, collector, objective), objective)


def _parameters(_: Path) -> list[bytes]:
    return as_json(
        {"train.epochs": "3", "train.learning_rate": "0.1", "prune.sparsity": "0.5", "train.optimizer": "sgd"},
        {"recipe": "prune:l1:0.5 > quantize:static", "settings": '{"eta": "3"}', "tolerations": "gpu=a100:NoSchedule"},
        {"store": "/tmp/kondense-none", "endpoint": "https://127.0.0.1:9000", "mean": "0.5,0.4", "source": "photos"},
    )


def _read_parameters(content: bytes, _: Path) -> None:
    from kondense.data_prep.config import DataPrepConfig
    from kondense.json_text import json_object
    from kondense.katib_search.config import read_pairs, read_tolerations
    from kondense.preprocessing import normalization_of
    from kondense.recipes import parse_recipe
    from kondense.store.connection import connection_from_environment
    from kondense.store.open import open_store
    from kondense.trial.config import TrialConfig

    readers: dict[str, Callable[[str], object]] = {
        "recipe": parse_recipe,
        "settings": lambda text: read_pairs("settings", text),
        "tolerations": read_tolerations,
        "mean": lambda text: normalization_of("dataset", text, "0.2,0.3"),
        "source": lambda text: DataPrepConfig.from_strings({"dataset_name": "folder", "source": text}),
        "store": lambda text: open_store(f"file://{text}"),
        "endpoint": lambda text: connection_from_environment(
            {"MINIO_ENDPOINT": text, "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b"}
        ),
    }
    refused = None
    for name, value in json_object(content, "parameters").items():
        text = value if isinstance(value, str) else json.dumps(value)
        try:
            if name in readers:
                readers[name](text)
            else:
                TrialConfig.from_strings({"dataset_uri": "d", name: text})
        except ValueError as error:
            _check(error)
            refused = error
    if refused:
        raise refused


def _check(error: Exception) -> None:
    from kondense.errors import EXPECTED

    if not isinstance(error, EXPECTED):
        raise error


PARSERS = (
    Parser("JSON", "json", _parameters, _any_json, 2),
    Parser("Experiment (YAML)", "text", _experiments, written("experiment.yaml", _read_experiment), 0.2),
    Parser("metric lines", "text", _metric_lines, _read_metrics, 2),
    Parser("parameters and addresses", "json", _parameters, _read_parameters),
)
