"""The end of a run: an error that names the candidates that failed or fell short, after all else is done."""

from pathlib import Path

from kondense.artifacts.report import read_report, shortcomings
from kondense.errors import ShortfallError
from kondense.logging import LOG
from kondense.verdict.config import VerdictConfig


def run(config: VerdictConfig, *, report_dir: Path) -> dict[str, float]:
    """Return the number of shortcomings that the report tells.

    Args:
        config: whether they are an error.
        report_dir: report.json.

    Raises:
        ShortfallError: a candidate failed or fell short of the request; the report and the choice stand.
    """
    lines = shortcomings(read_report(report_dir))
    for line in lines:
        LOG.warning("%s", line)
    if lines and config.fail:
        raise ShortfallError("; ".join(lines))
    return {"shortcomings": float(len(lines))}
