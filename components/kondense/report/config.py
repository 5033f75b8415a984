"""The parameters of the report stage."""

import dataclasses

from kondense.config import Config, option
from kondense.report.choice import OBJECTIVES


@dataclasses.dataclass(frozen=True)
class ReportConfig(Config):
    """How the candidates are compared and one is chosen."""

    title: str = option("", "heading of the report; empty for the network's and the data set's name")
    objective: str = option(
        "balanced",
        "what the chosen candidate has the most of: size ratio, latency ratio, or their geometric mean",
        choices=tuple(OBJECTIVES),
    )
    max_validation_drop: float = option(
        0.01, "fraction by which validation accuracy may lie below the teacher's", interval="[0, 1)"
    )
