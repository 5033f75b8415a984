"""Which search a local run is: the Experiment with the trials of earlier ones, and a digest of what must not change."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kondense.files import read_json, write_json
from kondense.katib.document import read_search, settings_of
from kondense.katib.spec import Experiment
from kondense.katib.template import NO_CHANGES, LocalChanges
from kondense.katib_search.earlier import with_earlier
from kondense.networks.code import code_digests
from kondense.networks.names import BUILT_IN
from kondense.search.earlier import SETTING

EARLIER = "earlier.json"  # the trials of earlier searches that a run started from


def read_earlier(experiment: Experiment, sources: Sequence[str], output: Path) -> Experiment:
    """Return the Experiment with the trials of earlier searches, as they were when the run began."""
    kept = output / EARLIER
    if kept.is_file() and (stored := read_json(kept, format_version=1)).get("sources") == list(sources):
        entries = experiment.document["spec"]["algorithm"].get("algorithmSettings") or []
        entries = [*entries, {"name": SETTING, "value": stored["setting"]}]
        algorithm = {**experiment.document["spec"]["algorithm"], "algorithmSettings": entries}
        document = {**experiment.document, "spec": {**experiment.document["spec"], "algorithm": algorithm}}
    else:
        document = with_earlier(experiment.document, sources)
        text = settings_of(document["spec"])[SETTING]
        output.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"format_version": 1, "sources": list(sources), "setting": text})
    made = replace(experiment, document=document, search=read_search(document))
    made.search.validate()
    return made


def digest(experiment: Experiment, working_directory: Path, changes: LocalChanges = NO_CHANGES) -> str:
    """Return a digest of all of an Experiment except for the counts, which Katib allows to change.

    The code of the user's networks that the trials' commands name is part of it; trials start in the working directory.
    """
    spec = dict(experiment.document["spec"])
    for count in ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount"):
        spec.pop(count, None)
    texts = (text for text in _texts(experiment.trial_spec) if text not in BUILT_IN)
    code = code_digests(texts, [working_directory])
    others = [*([code] if code else []), *([repr(changes)] if changes != NO_CHANGES else [])]
    text = json.dumps([experiment.name, spec, *others], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a document, and what follows the sign in ``--name=value``."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield from (value, value.partition("=")[2])
