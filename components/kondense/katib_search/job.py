"""The trials' Job: its command's flags, its addresses, its resources."""

from collections.abc import Mapping
from typing import Any

from kondense.errors import InputError
from kondense.katib_search.config import KatibSearchConfig, read_pairs, read_tolerations
from kondense.renamed import flag_names
from kondense.trial.config import TrialConfig

COMMAND = ["-m", "kondense.cli", "trial"]
COPIED = ("MINIO_ENDPOINT", "MINIO_SECURE", "MINIO_REGION")
SHARED_MEMORY = "/dev/shm"


def trial_container(job: Any) -> dict[str, Any]:
    """Return the container that runs the trial.

    Raises:
        ValueError: none runs ``kondense.cli trial``, which stores the model and its hyperparameters.
    """
    try:
        containers = job["spec"]["template"]["spec"]["containers"]
        candidates = [item for item in containers if list(item["command"])[1:] == COMMAND]
    except (KeyError, TypeError):
        candidates = []
    if not candidates or not isinstance(candidates[0].get("args"), list):
        raise InputError("the trials of the Experiment must run python3 -m kondense.cli trial with args, but do not.")
    container: dict[str, Any] = candidates[0]
    return container


def adapt_job(
    job: dict[str, Any], config: KatibSearchConfig, *, dataset_uri: str, environment: Mapping[str, str]
) -> None:
    """Set the step's values in the trials' Job, in place."""
    container = trial_container(job)
    if config.image:
        container["image"] = config.image
    if config.network:
        set_flag(container["args"], "train.network", config.network)
    if config.width:
        set_flag(container["args"], "train.width", f"{config.width:g}")
    variables = {"DATASET_URI": dataset_uri, "STORE_URI": config.store_uri}
    variables |= {name: environment.get(name, "") for name in COPIED}
    for name, value in variables.items():
        if value:
            set_variable(container, name, value)
    for flag, variable in (("dataset-uri", "DATASET_URI"), ("store-uri", "STORE_URI")):
        set_flag(container["args"], flag, f"$({variable})")
    _set_resources(container, config)
    _set_placement(job["spec"]["template"]["spec"], container, config)


def trial_config(template: Mapping[str, Any], name: str, assignments: Mapping[str, str]) -> TrialConfig:
    """Return all parameters of a trial: the flags of its command, and the defaults of the others.

    Raises:
        ValueError: a flag is unknown, or a value is out of range.
    """
    container = trial_container(template["trialSpec"])
    texts = {f"$({item['name']})": str(item.get("value", "")) for item in container.get("env") or []}
    for item in template.get("trialParameters") or []:
        texts[f"${{trialParameters.{item['name']}}}"] = assignments.get(item["reference"], name)
    flags = {}
    for word in container["args"]:
        (name, *_), text = flag_names([word]) or [word], word.partition("=")[2]
        for placeholder, value in texts.items():
            text = text.replace(placeholder, value)
        flags[name] = text
    return TrialConfig.from_strings(flags)


def store_uri(container: Mapping[str, Any]) -> str:
    """Return the address of the trials' models.

    Raises:
        ValueError: the template has none.
    """
    value = variable(container, "STORE_URI")
    if not value:
        raise InputError(
            "store_uri must be the address of the trials' models, but neither it nor the Experiment has one."
        )
    return value


def variable(container: Mapping[str, Any], name: str) -> str:
    """Return the literal value of a container's variable; empty if it has none."""
    return next((str(item.get("value", "")) for item in container.get("env") or [] if item.get("name") == name), "")


def set_variable(container: dict[str, Any], name: str, value: str) -> None:
    """Set a container's variable to a literal value, before the variables that may refer to it."""
    others = [item for item in container.get("env") or [] if item.get("name") != name]
    container["env"] = [{"name": name, "value": value}, *others]


def set_flag(args: list[str], name: str, value: str) -> None:
    """Set ``--name=value`` in place; a missing flag is appended."""
    prefix = f"--{name}="
    for index, word in enumerate(args):
        if word.startswith(prefix):
            args[index] = prefix + value
            return
    args.append(prefix + value)


def set_epochs(args: list[str], field: str, epochs: int) -> None:
    """Set ``epochs`` or ``max_epochs`` of the stages whose ``max_epochs`` the template states; else of train."""
    stages = [word[2:].partition(".")[0] for word in args if word.partition("=")[0].endswith(".max_epochs")]
    for stage in stages or ["train"]:
        set_flag(args, f"{stage}.{field}", str(epochs))


def _set_resources(container: dict[str, Any], config: KatibSearchConfig) -> None:
    resources = container.setdefault("resources", {})
    limits, requests = resources.setdefault("limits", {}), resources.setdefault("requests", {})
    for name, value in (("cpu", config.cpu), ("memory", config.memory)):
        if value:
            # A request above the limit is rejected, and equal values guarantee the resource.
            limits[name] = requests[name] = value
    if config.gpus >= 0:
        for name in [item for item in limits if "/" in item]:
            del limits[name]
            requests.pop(name, None)
    if config.gpus > 0:
        limits[config.accelerator] = str(config.gpus)


def _set_placement(pod: dict[str, Any], container: Mapping[str, Any], config: KatibSearchConfig) -> None:
    if selector := read_pairs("node_selector", config.node_selector):
        pod["nodeSelector"] = {**pod.get("nodeSelector", {}), **selector}
    tolerations = read_tolerations(config.tolerations)
    if config.gpus > 0:
        # The usual taint of GPU nodes; without the taint the toleration has no effect.
        tolerations.append({"key": config.accelerator, "operator": "Exists", "effect": "NoSchedule"})
    if tolerations:
        pod["tolerations"] = [*pod.get("tolerations", []), *tolerations]
    if config.shared_memory:
        mounts = [item for item in container.get("volumeMounts") or [] if item.get("mountPath") == SHARED_MEMORY]
        volumes = {item.get("name"): item for item in pod.get("volumes") or []}
        if not mounts or mounts[0]["name"] not in volumes:
            raise InputError(
                f"shared_memory needs a volume at {SHARED_MEMORY} in the trials' template, but it has none."
            )
        volumes[mounts[0]["name"]]["emptyDir"] = {"medium": "Memory", "sizeLimit": config.shared_memory}
