"""Katib's Suggestion service: pure calls into ``kondense.search``, without state of its own.

A controller sends everything with each request: its trials, and the settings of the last reply, which contain the
ledger of issued trials. So neither a restart, a lost status update nor a second replica changes an answer.
"""

import logging
import time
from typing import Any

import grpc

from kondense.katib.api import messages, services
from kondense.katib.document import read_search
from kondense.search.ledger import SETTING
from kondense.suggestion.conversion import read_document, read_trials, write_reply

LOG = logging.getLogger("suggestion")


class SuggestionService(services.SuggestionServicer):  # type: ignore[name-defined]
    """The two calls of ``api.v1.beta1.Suggestion``.

    A request that breaks a rule is answered with INVALID_ARGUMENT and a text that gives the rule and the value.
    """

    def ValidateAlgorithmSettings(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Check an Experiment when it starts; Katib fails it on INVALID_ARGUMENT."""
        experiment = request.experiment
        try:
            search = read_search(read_document(experiment))
            search.validate()
            search.history()  # checks the name and the objective
        except ValueError as error:
            _reject(context, "validate", experiment, error)
        LOG.info("valid", extra={"experiment": experiment.name, "algorithm": search.algorithm})
        return messages.ValidateAlgorithmSettingsReply()

    def GetSuggestions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return exactly as many trials as requested; Katib rejects any other number."""
        started = time.perf_counter()
        experiment, count = request.experiment, request.current_request_number
        try:
            search = read_search(read_document(experiment))
            trials = read_trials(request.trials, search.metric)
            history = search.history(trials, search.settings.get(SETTING, ""))
            # Without the setting random_state, experiments of different names draw different configurations.
            suggestion = search.suggester.suggest(search.space, search.settings, search.seed, history, count)
        except ValueError as error:
            _reject(context, "suggest", experiment, error)
        LOG.info(
            "suggested",
            extra={
                "experiment": experiment.name,
                "algorithm": search.algorithm,
                "requested": count,
                "total_requested": request.total_request_number,
                "trials": len(trials),
                "first": suggestion.proposals[0].name if suggestion.proposals else "",
                "took_ms": round(1000 * (time.perf_counter() - started), 1),
            },
        )
        return write_reply(search.algorithm, suggestion)


def _reject(context: grpc.ServicerContext, call: str, experiment: Any, error: ValueError) -> None:
    """End the call with INVALID_ARGUMENT; does not return."""
    LOG.warning("rejected", extra={"experiment": experiment.name, "call": call, "rule": str(error)})
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
