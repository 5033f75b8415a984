"""What a preflight examines and what it finds, as JSON between processes. Free of torch."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kondense.json_text import json_object
from kondense.profiles import Value

NETWORK = "network"  # the check of the training or import
POSSIBLE, BENT, DOUBTFUL, IMPOSSIBLE, UNTRIED = "ok", "changed", "doubtful", "impossible", "not tried"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step on the way to a candidate.

    Attributes:
        name: display name; candidates with steps of the same name share the step.
        step: the pipeline's step whose parameters it has.
        stage: the stage.
        config: its parameters.
        asked: whether the user set any of the parameters that say what it makes, so that it must be possible as it is.
        asked_fields: the parameters that the user set.
    """

    name: str
    step: str
    stage: str
    config: Mapping[str, Value]
    asked: bool = False
    asked_fields: Sequence[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Request:
    """A run to examine.

    Attributes:
        data_prep: parameters of the data.
        train: parameters of the teacher.
        candidates: the steps of each candidate.
        asked: the candidates that the user named.
        uint8_input: whether exported models take pixels.
    """

    data_prep: Mapping[str, Any]
    train: Mapping[str, Any]
    candidates: Mapping[str, Sequence[Step]] = dataclasses.field(default_factory=dict)
    asked: Sequence[str] = dataclasses.field(default_factory=list)
    uint8_input: bool = False

    def to_json(self) -> str:
        """Return the request as one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """Return the request that ``to_json`` wrote."""
        content = json_object(text, "the request")
        steps = {name: [Step(**each) for each in given] for name, given in content.pop("candidates").items()}
        return cls(**content, candidates=steps)


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: what, such as ``images`` or ``quantize pruned``.
        state: ``POSSIBLE``, ``BENT`` (a default was changed to what is possible), ``DOUBTFUL`` (possible, but hardly
            meant), ``IMPOSSIBLE`` or ``UNTRIED``.
        note: the figures or the reason.
        seconds: time taken.
        run_s: estimate of the seconds that the step takes in the run, on this machine; 0 if there is none.
        memory_bytes: estimate of the peak of the memory of its process; 0 if there is none.
        refused: whether the run cannot go on, because all need it or the user asked for it.
        changes: new values of parameters, by the pipeline's step.
    """

    name: str
    state: str
    note: str = ""
    seconds: float = 0.0
    run_s: float = 0.0
    memory_bytes: int = 0
    refused: bool = False
    changes: Mapping[str, Mapping[str, Value]] = dataclasses.field(default_factory=dict)
