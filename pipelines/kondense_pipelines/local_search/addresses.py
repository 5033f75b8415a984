"""Addresses of a local trial, instead of the template's addresses on the cluster: data set, store, teacher.

A template has such addresses as variables. A variable of this machine takes precedence; without one, the data set is
prepared on this machine, checkpoints are stored with the results, and the trial trains its teacher itself.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kondense.data_prep.config import DATASETS
from kondense.errors import KondenseError
from kondense.katib import template
from kondense.katib.spec import Experiment

ADDRESS = re.compile(r"DATASET_URI|STORE_URI|TEACHER_URI|MINIO_[A-Z_]+")
PREPARED = re.compile(rf".*/datasets/({'|'.join(DATASETS)})/?")


class AddressError(KondenseError, OSError):
    """The data set of an Experiment could not be prepared on this machine."""


def local_addresses(
    experiment: Experiment, output: Path, cache: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that replace the template's addresses.

    Args:
        experiment: a checked Experiment.
        output: directory of the run; it contains the trials' store unless a MinIO endpoint is known.
        cache: directory that runs share; it keeps a prepared data set.
        environment: this machine's variables.

    Raises:
        AddressError: the data set could not be prepared; the text gives the remedy.
    """
    cluster = {
        item["name"]: str(item["value"])
        for item in template.container(experiment).get("env") or []
        if "value" in item and ADDRESS.fullmatch(item["name"])
    }
    local = {name: environment[name] for name in cluster if name in environment}
    if "STORE_URI" in cluster and "STORE_URI" not in local and "MINIO_ENDPOINT" not in environment:
        local["STORE_URI"] = str(output.resolve() / "store")
    if "TEACHER_URI" in cluster and "TEACHER_URI" not in local:
        local["TEACHER_URI"] = ""
    if (
        "DATASET_URI" in cluster
        and "DATASET_URI" not in local
        and (match := PREPARED.fullmatch(cluster["DATASET_URI"]))
    ):
        local["DATASET_URI"] = str(_prepared(match[1], cache / "datasets" / match[1]))
    return local


def _prepared(name: str, directory: Path) -> Path:
    """Return the directory of a data set, prepared by its stage's own command if it is missing."""
    if not (directory / "dataset.json").is_file():
        command = [sys.executable, "-P", "-m", "kondense.cli", "data_prep"]
        command += ["--dataset-name", name, "--dataset-dir", str(directory)]
        result = subprocess.run(command, cwd=template.ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            raise AddressError(
                f"the data set {name} could not be prepared; set DATASET_URI to a prepared one. {result.stderr.strip()}"
            )
    return directory
