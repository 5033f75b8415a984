"""Report a trial's metrics to Katib: finite numbers only."""

import datetime
import math
import os
import time
from collections.abc import Mapping, Sequence

from kondense.errors import KondenseError
from kondense.logging import LOG

PAUSES_S = (1.0, 4.0, 16.0, 32.0)  # Katib's database manager restarts within a minute
TIMEOUT_S = 30.0
ADDRESS = "katib-db-manager.kubeflow:6789"


class NonFiniteMetricError(KondenseError, ArithmeticError):
    """A metric is NaN or infinite, which Katib would rank as the best."""


class PushError(KondenseError, ConnectionError):
    """Katib's database manager did not accept the metrics."""


def report(metrics: Mapping[str, float], *, pauses_s: Sequence[float] = PAUSES_S) -> None:
    """Push the metrics to Katib if it started this trial (``KATIB_TRIAL_NAME``); otherwise the command prints them.

    The SDK's ``report_metrics`` makes the same call, but requires the pod's service account token, which a trial does
    not need.

    Args:
        metrics: values by name, those that the Experiment declares: Katib's pages show any other as the objective.
        pauses_s: seconds between the attempts.

    Raises:
        NonFiniteMetricError: a metric is not finite; nothing is reported, because Katib would rank it as the best.
        PushError: Katib's database manager (``KATIB_DB_MANAGER_ADDRESS``) did not accept them, after several attempts.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFiniteMetricError(f"{name} must be finite to be reported, but got {value}.")
    trial = os.environ.get("KATIB_TRIAL_NAME")
    if trial:
        _push(trial, metrics, os.environ.get("KATIB_DB_MANAGER_ADDRESS", ADDRESS), pauses_s)


def _push(trial: str, metrics: Mapping[str, float], address: str, pauses_s: Sequence[float]) -> None:
    import grpc  # only a cluster needs it

    from kondense.katib.api import messages, services

    # With fractions of a second, because the latest value of a metric is the one with the latest stamp.
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    logs = [
        messages.MetricLog(time_stamp=stamp, metric=messages.Metric(name=name, value=f"{value:.10g}"))
        for name, value in metrics.items()
    ]
    request = messages.ReportObservationLogRequest(
        trial_name=trial, observation_log=messages.ObservationLog(metric_logs=logs)
    )
    reason = ""
    with grpc.insecure_channel(address) as channel:
        for pause_s in (*pauses_s, None):
            try:
                services.DBManagerStub(channel).ReportObservationLog(request, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                reason = f"{error.code().name} {error.details()}"  # grpc's errors are also calls
            else:
                return
            if pause_s is not None:
                LOG.info(f"could not push metrics to {address} ({reason}); next attempt in {pause_s:g} s")
                time.sleep(pause_s)
    raise PushError(f"Katib's database manager at {address} did not accept the metrics: {reason}")
