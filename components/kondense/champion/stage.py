"""Hold the published champion against the newest data: are they new to it, and how well does it do on them?"""

import tempfile
from pathlib import Path
from typing import Any

from kondense.artifacts.model import load_model
from kondense.champion.config import ChampionConfig
from kondense.data.dataset import FORMAT_VERSION as DATASET_FORMAT
from kondense.data.dataset import dataset_digest, load_dataset
from kondense.files import new_directory, read_json, write_json
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.publish.config import derived_model_name
from kondense.publish.versions import VersionRecord, read_champion, read_version, version_prefix
from kondense.store.open import open_store
from kondense.store.store import Store

FORMAT_VERSION = 1
VERDICT = "champion.json"


def run(config: ChampionConfig, *, dataset_dir: Path, champion_dir: Path) -> dict[str, float]:
    """Compare the data that the champion was made from with ``dataset_dir``, and measure it on the new test split.

    Args:
        config: the parameters.
        dataset_dir: the newest Dataset artifact.
        champion_dir: gets champion.json: ``model_name``, ``version`` (empty before the first publication),
            ``challenge`` (whether a challenger is to be made), ``reason``, ``test_accuracy`` (or null).

    Returns:
        ``challenge`` (1 or 0) and, when there is a champion for such images, ``champion_test_accuracy``.

    Raises:
        ArtifactError: a damaged artifact or record.
        StoreError: the store cannot be reached.
    """
    data = read_json(dataset_dir / "dataset.json", format_version=DATASET_FORMAT)
    name = config.model_name or derived_model_name(config.network, data["name"])
    store = open_store(config.store_uri)
    champion = read_champion(store, name)
    if champion is None:
        verdict = _verdict(name, "", True, f"{name} has no champion yet", None)
    else:
        record = read_version(store, name, champion["version"]).record
        known = record["dataset_digest"] == dataset_digest(dataset_dir)
        found = _test_accuracy(store, record, champion["version"], dataset_dir)
        reason = f"champion {champion['version']} was made from {'these very' if known else 'other'} data"
        verdict = _verdict(name, champion["version"], config.always or not known, reason, found)
    with new_directory(champion_dir) as scratch:
        write_json(scratch / VERDICT, verdict)
    LOG.info(f"{verdict['reason']}: {'a challenger is made' if verdict['challenge'] else 'nothing to do'}")
    metrics = {"challenge": float(verdict["challenge"])}
    if verdict["test_accuracy"] is not None:
        metrics["champion_test_accuracy"] = verdict["test_accuracy"]
    return metrics


def _verdict(name: str, version: str, challenge: bool, reason: str, found: float | None) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "model_name": name,
        "version": version,
        "challenge": challenge,
        "reason": reason,
        "test_accuracy": found,
    }


def _test_accuracy(store: Store, record: VersionRecord, version: str, dataset_dir: Path) -> float | None:
    """Return the champion's accuracy on the data's test split; None when it was made for other images or classes."""
    dataset = load_dataset(dataset_dir)
    if (record["image_shape"], record["classes"]) != (list(dataset.shape), list(dataset.classes)):
        return None
    if record["test_digest"] == read_json(dataset_dir / "dataset.json", format_version=DATASET_FORMAT)["files"].get(
        "test.safetensors"
    ):
        return record["test_accuracy"]
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / version
        store.download_directory(version_prefix(record["model_name"], version), directory)
        logits_NK = predict(load_model(directory).module, dataset.test, dataset)
    return accuracy(logits_NK, dataset.test.labels)
