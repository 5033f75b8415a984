"""Names and labels of the objects that a step creates: by its pipeline run, the same for every attempt."""

import re

from kondense.errors import InputError

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035, as Katib's webhook and the TrainJob's schema ask for
NAME_LENGTH = 40  # Katib's limit; it leaves room for what TrainJobs' controllers add to name pods
ID_LENGTH = 16  # characters of the run's id in the name
RUN = "kondense/run"  # the annotation of the run that owns an object, and the label to find it by
PIPELINE = "kondense/pipeline"  # the annotation and the label of the run's pipeline
LABEL_LENGTH = 63  # characters of a label's value; Kubernetes' limit


def run_name(kind: str, base: str, run_id: str) -> str:
    """Return the name of a run's object: the same for every attempt of its step, of at most 40 characters.

    Args:
        kind: the object, such as ``Experiment``; for errors.
        base: the name's beginning.
        run_id: the run.

    Raises:
        InputError: the run has no id, or the base is not a valid name.
    """
    identity = re.sub(r"[^a-z0-9]", "", run_id.lower())[:ID_LENGTH]
    if not identity:
        raise InputError(f"run_id must be the id of a pipeline run, but got {run_id!r}.")
    prefix = base[: NAME_LENGTH - ID_LENGTH - 1].rstrip("-")
    if not NAME.fullmatch(prefix):
        raise InputError(f"the {kind}'s name must be a-z, 0-9 and dashes after a letter, but got {base!r}.")
    return f"{prefix}-{identity}"


def label_value(text: str) -> str:
    """Return a text as the value of a label: letters and digits, with dashes, dots and underscores in between."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:LABEL_LENGTH].rstrip("-_.")
