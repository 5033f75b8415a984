"""The parameters of the katib_search stage: which Experiment, what of it is replaced, where it runs."""

import dataclasses
import json
import re
from urllib.parse import urlsplit

from kondense.config import Config, option
from kondense.errors import InputError

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?)?")
TOLERATION = re.compile(r"[\w./-]+(=[\w.-]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?")


@dataclasses.dataclass(frozen=True)
class KatibSearchConfig(Config):
    """A Katib Experiment, and what takes the place of its own values; empty, 0 or -1 leaves one as it is."""

    experiment: str = option("", "the Katib Experiment (kubeflow.org/v1beta1) as YAML or JSON text")
    run_id: str = option("", "the pipeline run's id, from which the Experiment's name is made")
    pipeline: str = option("", "the pipeline's name, which the Experiment is labelled with")
    namespace: str = option("", "where the trials run; empty: where this step runs")
    dataset_uri: str = option("", "where trials find the data set; empty: the place of this step's own")
    store_uri: str = option("", "where trials keep checkpoints and models; empty: as the Experiment says")
    image: str = option("", "the trials' image; empty: as the Experiment says")
    network: str = option("", "the trials' network; empty: as the Experiment says")
    width: float = option(0.0, "multiplier of its channels; 0: as the Experiment says", interval="[0, 16]")
    algorithm: str = option("", "random, grid, tpe, hyperband or bohb; empty: as the Experiment says")
    settings: str = option("", "settings of the algorithm, name=value joined by commas, or a map as JSON")
    space: str = option("", "the space in the form of spec.parameters, as JSON; empty: as the Experiment says")
    max_epochs: int = option(
        0, "the most epochs that a trial gets, the maximum resource; 0: as the Experiment says", interval="[0, 100000]"
    )
    max_trials: int = option(0, "trials in all; 0: as the Experiment says", interval="[0, 100000]")
    parallel_trials: int = option(
        0, "trials at a time: 1 runs them one after another; 0: as the Experiment says", interval="[0, 1000]"
    )
    max_failed_trials: int = option(
        -1, "failed trials that end the search; -1: as the Experiment says", interval="[-1, 100000]"
    )
    gpus: int = option(-1, "accelerators per trial, 0 for none; -1: as the Experiment says", interval="[-1, 64]")
    accelerator: str = option("nvidia.com/gpu", "the resource's name of an accelerator")
    node_selector: str = option("", "labels of the trials' nodes, key=value joined by commas, or a map as JSON")
    tolerations: str = option("", "taints that trials tolerate, key=value:effect or key:effect joined by commas")
    cpu: str = option("", "CPU limit of a trial, such as 4; empty: as the Experiment says")
    memory: str = option("", "memory limit of a trial, such as 8Gi; empty: as the Experiment says")
    shared_memory: str = option("", "size of a trial's /dev/shm, such as 2Gi; empty: as the Experiment says")
    patience_minutes: float = option(
        15.0, "minutes without a first trial after which the search fails; 0 waits for ever", interval="[0, inf)"
    )
    poll_seconds: float = option(10.0, "seconds between two looks at the Experiment", interval="[0.01, 3600]")
    ui: str = option("", "address of Kubeflow's dashboard or of Katib's pages, for links; empty: a port-forward's")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cpu", "memory", "shared_memory"):
            text = getattr(self, name)
            if text and not QUANTITY.fullmatch(text):
                raise InputError(f"{name} must be a Kubernetes quantity such as 4 or 8Gi, but got {text!r}.")
        parts = urlsplit(self.ui)
        if self.ui and (parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment):
            raise InputError(f"ui must be an address such as https://host or https://host/katib, but got {self.ui!r}.")
        read_pairs("settings", self.settings)
        read_pairs("node_selector", self.node_selector)
        read_tolerations(self.tolerations)


def read_pairs(name: str, text: str) -> dict[str, str]:
    """Read ``key=value`` pairs joined by commas, or a JSON map of texts, whose values may hold commas.

    Raises:
        ValueError: a part is no such pair, or the text is no such map.
    """
    if text.strip().startswith("{"):
        return _read_map(name, text)
    pairs = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{name} must be key=value joined by commas, but got {part!r}.")
        pairs[key.strip()] = value.strip()
    return pairs


def _read_map(name: str, text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{name} must be a map as JSON, but: {error}.") from None
    for key, value in found.items():
        if not isinstance(value, str):
            raise InputError(f"{name} must map names to texts, but {key} is {value!r}.")
    return dict(found)


def read_tolerations(text: str) -> list[dict[str, str]]:
    """Read tolerations as Kubernetes takes them: ``gpu=a100:NoSchedule`` or, for any value, ``gpu:NoSchedule``.

    Raises:
        ValueError: a part has another form.
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not TOLERATION.fullmatch(part):
            raise InputError(f"tolerations must be key=value:effect or key:effect joined by commas, but got {part!r}.")
        taint, _, effect = part.partition(":")
        key, equals, value = taint.partition("=")
        toleration = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
        found.append(toleration | ({"effect": effect} if effect else {}))
    return found
