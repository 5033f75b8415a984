"""The parameters of the verdict."""

import dataclasses

from kondense.config import Config, option


@dataclasses.dataclass(frozen=True)
class VerdictConfig(Config):
    """The end of a run with candidates that failed or fell short of the request."""

    fail: bool = option(
        True, "end the run with an error (exit code 3) if a candidate failed or fell short of the request"
    )
