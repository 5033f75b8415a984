"""What Katib's webhook takes and its controller fails on later: no trial of such an Experiment can start.

Source: applyParameters in manifest/generator.go of Katib 0.19. The controller pastes values into the template's JSON
text, compares the number of assignments with that of the trialParameters, and retries a failure without end.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kondense.katib.fields import Violation
from kondense.katib.template_rules import INDEXED, META_REFERENCE

PATH = "spec.trialTemplate.trialParameters"


def broken(document: Mapping[str, Any]) -> list[Violation]:
    """Return the fields for which Katib's controller can start no trial.

    Args:
        document: an Experiment that complies with the webhook's rules.
    """
    spec = document["spec"]
    return [*_choices(spec.get("parameters", [])), *_references(spec), *_metadata(spec["trialTemplate"])]


def _choices(parameters: Any) -> Iterator[Violation]:
    for i, parameter in enumerate(parameters):
        for j, choice in enumerate(parameter.get("feasibleSpace", {}).get("list", [])):
            if json.dumps(choice, ensure_ascii=False) != f'"{choice}"':
                rule = (
                    "must not hold a quotation mark, a backslash or a control character: Katib takes the Experiment, "
                    "but pastes values into the template's JSON text and can then start no trial"
                )
                yield Violation(f"spec.parameters[{i}].feasibleSpace.list[{j}]", rule, choice)


def _references(spec: Mapping[str, Any]) -> Iterator[Violation]:
    references = {parameter.get("reference") for parameter in spec["trialTemplate"].get("trialParameters", [])}
    names = {parameter.get("name") for parameter in spec.get("parameters", [])}
    for name in sorted(str(name) for name in names - references):
        rule = "must reference every one of spec.parameters: Katib takes the Experiment, but can then start no trial"
        yield Violation(PATH, rule, name)


def _metadata(template: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield the references to labels and annotations of the template that it has not."""
    metadata = (template.get("trialSpec") or {}).get("metadata")
    for i, parameter in enumerate(template.get("trialParameters", [])):
        meta = META_REFERENCE.search(parameter["reference"])
        indexed = INDEXED.fullmatch(meta[1]) if meta else None
        kind, key = indexed.groups() if indexed else (meta[1] if meta else "", "")
        if kind not in ("Labels", "Annotations") or "trialSpec" not in template:
            continue
        kind = kind.lower()
        held = metadata.get(kind) if isinstance(metadata, Mapping) else None
        if not isinstance(held, Mapping) or key not in held:
            rule = f"must be one of the {kind} of trialSpec: Katib takes the Experiment, but can then start no trial"
            yield Violation(f"{PATH}[{i}].reference", rule, parameter["reference"])
