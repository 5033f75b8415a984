"""Register Kondense's algorithms in Katib's configuration, and label the namespace of trials: a Job of manifests/katib.

The rest of the ConfigMap ``katib-config`` is not changed. Annotations keep replaced entries, and ``--remove`` restores
them.
"""

import argparse
import copy
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from kondense.errors import InputError
from kondense.json_text import json_object
from kondense.katib.yaml_text import Dumper, read_documents, read_file

from kondense_pipelines.deploy import job

CONFIG_MAP, KEY = "katib-config", "katib-config.yaml"
REPLACED = "kondense/replaced-algorithms"  # the annotation: name -> Katib's entry, null if there was none
# The lists of Katib's configuration that have entries of ours, and the annotations for those replaced.
SECTIONS = {"suggestions": REPLACED, "earlyStoppings": "kondense/replaced-early-stopping"}
LABEL = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}

Entry = Mapping[str, Any]


def read_algorithms(path: Path, image: str) -> dict[str, list[Entry]]:
    """Return the entries of a file (manifests/katib/algorithms.yaml) with ``image``, by section.

    Raises:
        InputError: the file has another form, or ``image`` is empty.
    """
    content, *_ = read_file(path) or [None]
    keys = set(content) - {"extras", "earlyStopping"} if isinstance(content, dict) else set()
    if keys != {"algorithms", "container"} or not content["algorithms"]:
        raise InputError(f"{path} must hold algorithms, a list of names, and container, but got {content!r}.")
    extras, stopping = content.get("extras") or {}, content.get("earlyStopping") or {}
    if unknown := sorted(set(extras) - set(content["algorithms"])):
        raise InputError(f"{path} must have extras of its algorithms only, but has them of {unknown[0]!r}.")
    if not image:
        raise InputError("KONDENSE_SUGGESTION_IMAGE must be the suggestion image, but is not set.")
    names, container = content["algorithms"], content["container"]
    return {
        "suggestions": [{"algorithmName": name, "image": image, **container, **extras.get(name, {})} for name in names],
        "earlyStoppings": [{"algorithmName": name, "image": image, **fields} for name, fields in stopping.items()],
    }


def add(
    config: Entry, entries: Sequence[Entry], replaced: Mapping[str, Any], section: str = "suggestions"
) -> tuple[Entry, dict[str, Any]]:
    """Return Katib's configuration with ``entries``, and the entries that they replaced.

    Args:
        config: a KatibConfig.
        entries: SuggestionConfigs, or EarlyStoppingConfigs.
        replaced: the replaced entries of earlier calls.
        section: one of SECTIONS.
    """
    changed = copy.deepcopy(dict(config))
    listed = _section(changed, section)
    kept = dict(replaced)
    for entry in entries:
        name = entry["algorithmName"]
        # Katib uses the last entry of a name.
        former = [item for item in listed if item.get("algorithmName") == name]
        if name not in kept:
            kept[name] = former[-1] if former else None
        listed[:] = [item for item in listed if item.get("algorithmName") != name] + [dict(entry)]
    return changed, kept


def remove(config: Entry, replaced: Mapping[str, Any], section: str = "suggestions") -> Entry:
    """Return Katib's configuration as it was before ``add``."""
    changed = copy.deepcopy(dict(config))
    listed = _section(changed, section)
    listed[:] = [item for item in listed if item.get("algorithmName") not in replaced]
    listed.extend(former for former in replaced.values() if former)
    if not listed:
        del changed["runtime"][section]
    return changed


def _section(config: dict[str, Any], section: str) -> list[Any]:
    if config.get("kind") != "KatibConfig":
        raise InputError(f"{KEY} must be a KatibConfig (Katib 0.16 or newer), but its kind is {config.get('kind')!r}.")
    listed: list[Any] = config.setdefault("runtime", {}).setdefault(section, [])
    return listed


def apply(api: Any, namespace: str, entries: Mapping[str, Sequence[Entry]], *, removing: bool = False) -> Iterator[str]:
    """Change the ConfigMap and label the namespace; yield a line for each.

    Args:
        api: a ``kubernetes.client.ApiClient``.
        namespace: Katib's.
        entries: by section.
        removing: restore what ``entries`` replaced.

    Raises:
        InputError: Katib is not in the namespace, or its configuration has another form.
        ApiException: the API refused, or the ConfigMap was changed meanwhile (409).
    """
    from kubernetes import client

    core = client.CoreV1Api(api)
    config_map = _config_map(core, namespace)
    annotations = dict(config_map.metadata.annotations or {})
    (config,) = read_documents(config_map.data[KEY])
    changed = config
    for section, annotation in SECTIONS.items():
        replaced = json_object(annotations.pop(annotation, "{}"), f"the annotation {annotation}")
        if removing:
            changed = remove(changed, replaced, section) if replaced else changed
        elif entries[section] or replaced:
            changed, replaced = add(changed, entries[section], replaced, section)
            annotations[annotation] = json.dumps(replaced)
    names = ", ".join(entry["algorithmName"] for section in SECTIONS for entry in entries[section])
    if changed == config and annotations == (config_map.metadata.annotations or {}):
        yield f"{CONFIG_MAP}: {names} are registered already"
    else:
        config_map.data[KEY] = yaml.dump(changed, Dumper=Dumper, sort_keys=False)
        config_map.metadata.annotations = annotations
        core.replace_namespaced_config_map(CONFIG_MAP, namespace, config_map)
        yield f"{CONFIG_MAP}: {names} {'removed' if removing else 'registered'}"
    if not removing:
        core.patch_namespace(namespace, {"metadata": {"labels": LABEL}})
        yield f"namespace {namespace}: Katib's metrics collectors may join its trials"


def _config_map(core: Any, namespace: str) -> Any:
    from kubernetes.client import ApiException

    try:
        config_map = core.read_namespaced_config_map(CONFIG_MAP, namespace)
    except ApiException as error:
        if error.status != 404:
            raise
        raise InputError(
            f"Katib must be installed in namespace {namespace}, but {CONFIG_MAP} does not exist."
        ) from None
    if KEY not in (config_map.data or {}):
        raise InputError(
            f"{CONFIG_MAP} must hold {KEY} (Katib 0.16 or newer), but holds {sorted(config_map.data or {})}."
        )
    return config_map


def main() -> int:
    """Run the Job."""
    parser = argparse.ArgumentParser(prog="python -m kondense_pipelines.deploy.algorithms", description=__doc__)
    parser.add_argument("file", type=Path, help="the algorithms and their container")
    parser.add_argument("--remove", action="store_true", help="remove them and restore the entries that they replaced")
    options = parser.parse_args()

    def task() -> Iterator[str]:
        entries = read_algorithms(options.file, os.environ.get("KONDENSE_SUGGESTION_IMAGE", ""))
        yield from apply(job.kubernetes_client(), job.namespace(), entries, removing=options.remove)

    return job.run(task)


if __name__ == "__main__":
    sys.exit(main())
