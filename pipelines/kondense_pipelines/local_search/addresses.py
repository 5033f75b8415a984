"""Where a local trial finds what the template addresses on the cluster: its data set, its store, its teacher.

A template states such addresses as variables. This machine's own value wins for them; without one, the data set is
prepared here, checkpoints go beside the results, and a teacher is trained by the trial itself.
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
    """Return the variables that take the place of the template's addresses.

    Args:
        experiment: a checked Experiment.
        output: directory of the run; its trials' store is made there unless a MinIO endpoint is known.
        cache: directory of what runs share; a prepared data set stays there.
        environment: this machine's variables.

    Raises:
        AddressError: the data set could not be prepared; the text gives the ways to provide it.
    """
    stated = {
        item["name"]: str(item["value"])
        for item in template.container(experiment).get("env") or []
        if "value" in item and ADDRESS.fullmatch(item["name"])
    }
    found = {name: environment[name] for name in stated if name in environment}
    if "STORE_URI" in stated and "STORE_URI" not in found and "MINIO_ENDPOINT" not in environment:
        found["STORE_URI"] = str(output.resolve() / "store")
    if "TEACHER_URI" in stated and "TEACHER_URI" not in found:
        found["TEACHER_URI"] = ""
    if "DATASET_URI" in stated and "DATASET_URI" not in found and (match := PREPARED.fullmatch(stated["DATASET_URI"])):
        found["DATASET_URI"] = str(_prepared(match[1], cache / "datasets" / match[1]))
    return found


def _prepared(name: str, directory: Path) -> Path:
    """Return the directory of a data set, prepared by its stage's own command if it is not there."""
    if not (directory / "dataset.json").is_file():
        command = [sys.executable, "-m", "kondense.cli", "data_prep"]
        command += ["--dataset-name", name, "--dataset-dir", str(directory)]
        result = subprocess.run(command, cwd=template.ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            raise AddressError(
                f"the data set {name} could not be prepared; set DATASET_URI to a prepared one. {result.stderr.strip()}"
            )
    return directory
