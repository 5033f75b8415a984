"""The parameters of the katib_search stage: the Experiment, the changes to it, and its environment."""

import dataclasses
import re
from urllib.parse import urlsplit

from kondense.config import Config, option
from kondense.errors import InputError
from kondense.json_text import json_object
from kondense.search.suggesters import SUGGESTERS

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?)?")
TOLERATION = re.compile(r"[\w./-]+(=[\w.-]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?")


@dataclasses.dataclass(frozen=True)
class KatibSearchConfig(Config):
    """A Katib Experiment and changes to it; an empty text, 0 or -1 keeps a value of the Experiment."""

    experiment: str = option("", "the Katib Experiment (kubeflow.org/v1beta1) as YAML or JSON text")
    run_id: str = option("", "id of the pipeline run, a part of the Experiment's name")
    pipeline: str = option("", "name of the pipeline, a label of the Experiment")
    namespace: str = option("", "namespace of the trials; empty: that of this step")
    dataset_uri: str = option("", "address of the trials' data set; empty: that of this step's data set")
    store_uri: str = option("", "address of the trials' checkpoints and models; empty: as in the Experiment")
    image: str = option("", "image of the trials; empty: as in the Experiment")
    network: str = option("", "network of the trials; empty: as in the Experiment")
    width: float = option(0.0, "multiplier of the network's channels; 0: as in the Experiment", interval="[0, 16]")
    algorithm: str = option("", f"{', '.join(SUGGESTERS)}; empty: as in the Experiment")
    settings: str = option(
        "", "settings of the algorithm that replace the Experiment's: name=value joined by commas, or a JSON map"
    )
    space: str = option(
        "", "parameters to search, in the form of spec.parameters, as JSON; empty: as in the Experiment"
    )
    max_epochs: int = option(
        0, "maximum number of epochs of a trial, the maximum resource; 0: as in the Experiment", interval="[0, 100000]"
    )
    max_trials: int = option(0, "number of trials; 0: as in the Experiment", interval="[0, 100000]")
    parallel_trials: int = option(
        0, "trials at a time; 1: one after the other; 0: as in the Experiment", interval="[0, 1000]"
    )
    max_failed_trials: int = option(
        -1, "number of failed trials that ends the search; -1: as in the Experiment", interval="[-1, 100000]"
    )
    gpus: int = option(-1, "accelerators per trial, 0 for none; -1: as in the Experiment", interval="[-1, 64]")
    accelerator: str = option("nvidia.com/gpu", "resource name of the accelerators")
    node_selector: str = option("", "labels of the trials' nodes: key=value joined by commas, or a JSON map")
    tolerations: str = option("", "taints that the trials tolerate: key=value:effect or key:effect joined by commas")
    cpu: str = option("", "CPU limit of a trial, such as 4; empty: as in the Experiment")
    memory: str = option("", "memory limit of a trial, such as 8Gi; empty: as in the Experiment")
    shared_memory: str = option("", "size of a trial's /dev/shm, such as 2Gi; empty: as in the Experiment")
    patience_minutes: float = option(
        15.0, "minutes without a first trial after which the search fails; 0: no limit", interval="[0, inf)"
    )
    poll_seconds: float = option(
        10.0, "seconds between two requests for the Experiment's status", interval="[0.01, 3600]"
    )
    earlier: str = option(
        "",
        "earlier searches to start from, joined by commas: results.json files, katib://NAMESPACE, or "
        "katib://NAMESPACE/EXPERIMENT",
    )
    pick: str = option(
        "",
        "trial to take, such as validation_accuracy >= 0.9, min latency_ms; expected: the one that a model of all "
        "trials expects to be the best, for noisy objectives; empty: the best in the objective",
    )
    ui: str = option(
        "", "address of Kubeflow's dashboard or of Katib's pages, for links; empty: that of a port-forward"
    )

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
    """Parse ``key=value`` pairs joined by commas, or a JSON map of texts, whose values may contain commas.

    Raises:
        ValueError: a part is not a pair, or the text is not a map of texts.
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
    pairs = json_object(text, name)
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise InputError(f"{name} must map names to texts, but {key} is {value!r}.")
    return dict(pairs)


def read_tolerations(text: str) -> list[dict[str, str]]:
    """Parse tolerations into Kubernetes' form: ``gpu=a100:NoSchedule`` or, for any value, ``gpu:NoSchedule``.

    Raises:
        ValueError: a part has another form.
    """
    tolerations = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not TOLERATION.fullmatch(part):
            raise InputError(f"tolerations must be key=value:effect or key:effect joined by commas, but got {part!r}.")
        taint, _, effect = part.partition(":")
        key, equals, value = taint.partition("=")
        toleration = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
        tolerations.append(toleration | ({"effect": effect} if effect else {}))
    return tolerations
