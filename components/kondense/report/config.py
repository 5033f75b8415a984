"""The parameters of the report stage."""

import dataclasses

from kondense.config import Config, option
from kondense.report.choice import OBJECTIVES


@dataclasses.dataclass(frozen=True)
class ReportConfig(Config):
    """Comparison of the candidates and choice of one."""

    title: str = option("", "heading of the report; empty for the names of network and data set")
    objective: str = option(
        "balanced",
        "score that the chosen candidate maximises: size ratio, latency ratio, or their geometric mean (balanced)",
        choices=tuple(OBJECTIVES),
    )
    note: str = option("", "a further note of the report, such as what was changed to what is possible")
    max_validation_drop: float = option(
        0.01, "maximum drop of the validation accuracy below the teacher's, a fraction", interval="[0, 1)"
    )
