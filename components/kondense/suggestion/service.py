"""Katib's Suggestion service: pure calls into ``kondense.search``, no memory of its own.

A controller sends everything with each request: the trials it knows and the settings of the last reply, which
hold the ledger of issued trials. So a restart, a lost status update or a second replica changes no answer.
"""

import logging
import time
from typing import Any

import grpc

from kondense.katib.api import messages, services
from kondense.suggestion import conversion

SEED = 0  # of experiments without the setting random_state; their name tells their draws apart
LOG = logging.getLogger("suggestion")


class SuggestionService(services.SuggestionServicer):  # type: ignore[name-defined]
    """The two calls of ``api.v1.beta1.Suggestion``.

    A rule that a request breaks is answered with INVALID_ARGUMENT and a text that gives rule and value.
    """

    def ValidateAlgorithmSettings(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Check an Experiment when it starts; Katib fails it on INVALID_ARGUMENT."""
        experiment = request.experiment
        try:
            search = conversion.read_search(experiment)
            search.validate()
            conversion.read_history(experiment, ())
        except ValueError as error:
            _reject(context, "validate", experiment, error)
        LOG.info("valid", extra={"experiment": experiment.name, "algorithm": search.algorithm})
        return messages.ValidateAlgorithmSettingsReply()

    def GetSuggestions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return exactly as many trials as are asked for; Katib refuses any other number."""
        started = time.perf_counter()
        experiment, count = request.experiment, request.current_request_number
        try:
            search = conversion.read_search(experiment)
            history = conversion.read_history(experiment, request.trials)
            suggestion = search.suggester.suggest(search.space, search.settings, SEED, history, count)
        except ValueError as error:
            _reject(context, "suggest", experiment, error)
        LOG.info(
            "suggested",
            extra={
                "experiment": experiment.name,
                "algorithm": search.algorithm,
                "requested": count,
                "total_requested": request.total_request_number,
                "trials": len(history.trials),
                "first": suggestion.proposals[0].name if suggestion.proposals else "",
                "took_ms": round(1000 * (time.perf_counter() - started), 1),
            },
        )
        return conversion.write_reply(search.algorithm, suggestion)


def _reject(context: grpc.ServicerContext, call: str, experiment: Any, error: ValueError) -> None:
    """End the call with INVALID_ARGUMENT; does not return."""
    LOG.warning("rejected", extra={"experiment": experiment.name, "call": call, "rule": str(error)})
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
