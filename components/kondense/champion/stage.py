"""Compare the published champion with the newest data: whether they are new to it, and its accuracy on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.champion.config import ChampionConfig
from kondense.data.dataset import FORMAT_VERSION as DATASET_FORMAT
from kondense.data.dataset import dataset_digest
from kondense.files import new_directory, read_json, write_json
from kondense.logging import LOG
from kondense.publish.config import derived_model_name
from kondense.publish.stage import measured_accuracy
from kondense.publish.versions import VersionRecord, read_champion, read_version
from kondense.store.open import open_store
from kondense.store.store import Store

FORMAT_VERSION = 1
VERDICT = "champion.json"


def run(config: ChampionConfig, *, dataset_dir: Path, champion_dir: Path) -> dict[str, float]:
    """Compare the champion's data with ``dataset_dir``, and measure the champion on the new test split.

    Args:
        config: the parameters.
        dataset_dir: the newest Dataset artifact.
        champion_dir: receives champion.json: ``model_name``, ``version`` (empty before the first publication),
            ``challenge`` (whether to train a challenger), ``reason``, ``test_accuracy`` (or null).

    Returns:
        ``challenge`` (1 or 0) and, if a champion for such images exists, ``champion_test_accuracy``.

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
        test_accuracy = _test_accuracy(store, record, champion["version"], data, dataset_dir)
        reason = f"champion {champion['version']} was made from {'the same' if known else 'other'} data"
        verdict = _verdict(name, champion["version"], config.always or not known, reason, test_accuracy)
    with new_directory(champion_dir) as scratch:
        write_json(scratch / VERDICT, verdict)
    LOG.info(f"{verdict['reason']}: {'a challenger is trained' if verdict['challenge'] else 'nothing to do'}")
    metrics = {"challenge": float(verdict["challenge"])}
    if verdict["test_accuracy"] is not None:
        metrics["champion_test_accuracy"] = verdict["test_accuracy"]
    return metrics


def _verdict(name: str, version: str, challenge: bool, reason: str, test_accuracy: float | None) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "model_name": name,
        "version": version,
        "challenge": challenge,
        "reason": reason,
        "test_accuracy": test_accuracy,
    }


def _test_accuracy(
    store: Store, record: VersionRecord, version: str, data: Mapping[str, Any], dataset_dir: Path
) -> float | None:
    """Return the champion's accuracy on the test split; None if it was made for other images or classes."""
    if (record["image_shape"], record["classes"]) != (data["shape"], data["classes"]):
        return None
    if record["test_digest"] == data["files"].get("test.safetensors"):
        return record["test_accuracy"]
    return measured_accuracy(store, record["model_name"], version, dataset_dir)
