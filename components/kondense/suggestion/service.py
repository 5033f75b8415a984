"""Katib's Suggestion service: calls into ``kondense.search``, whose answers depend on the request alone.

A controller sends everything with each request: its trials, and the settings of the last reply, which contain the
ledger of issued trials. So neither a restart, a lost status update nor a second replica changes an answer.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from kondense.katib.api import messages, services
from kondense.katib.document import read_search
from kondense.search import pbt
from kondense.search.history import AbandonedError, Suggestion
from kondense.search.ledger import SETTING
from kondense.search.population_files import provide
from kondense.suggestion.conversion import check_stoppable, read_document, read_trials, write_reply
from kondense.suggestion.rejection import reject

MAX_REQUESTED = 1_000  # trials of one call; Katib asks for at most parallelTrialCount
MAX_TRIALS = 50_000  # reported in one call; Katib's Suggestion object holds fewer than 10,000 within etcd's 1.5 MiB
# Calls beyond these sizes take turns, so that ordinary ones and the probes are answered beside them.
LARGE_REQUESTED = 64
LARGE_TRIALS = 5_000
LARGE_AT_ONCE = 2
FILES = Path("/opt/katib/data")
LOG = logging.getLogger("suggestion")


class SuggestionService(services.SuggestionServicer):  # type: ignore[name-defined]
    """The two calls of ``api.v1.beta1.Suggestion``.

    A request that breaks a rule is answered with INVALID_ARGUMENT and a text that gives the rule and the value, one
    that is too large for now with RESOURCE_EXHAUSTED. A call whose caller has gone ends before its next proposal.

    Args:
        large_at_once: calls beyond LARGE_REQUESTED or LARGE_TRIALS that are computed at a time.
        files: where Katib mounts the volume of the trials' files (pbt).
    """

    def __init__(self, large_at_once: int = LARGE_AT_ONCE, files: Path = FILES) -> None:
        self._large_at_once, self._files = large_at_once, files
        self._large = threading.BoundedSemaphore(large_at_once)

    def ValidateAlgorithmSettings(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Check an Experiment when it starts; Katib fails it on INVALID_ARGUMENT."""
        experiment = request.experiment
        try:
            search = read_search(read_document(experiment))
            check_stoppable(experiment.spec)
            search.validate()
            search.history()  # checks the name and the objective
        except ValueError as error:
            reject(context, "validate", experiment.name, error)
        LOG.info("valid", extra={"experiment": experiment.name, "algorithm": search.algorithm})
        return messages.ValidateAlgorithmSettingsReply()

    def GetSuggestions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return exactly as many trials as requested; Katib rejects any other number."""
        started = time.perf_counter()
        experiment, count = request.experiment, request.current_request_number
        with self._admitted(context, experiment, count, len(request.trials)):
            try:
                search = read_search(read_document(experiment))
                suggester = search.suggester  # it may import a package: less memory before the trials than beside them
                others = search.goals.metrics if search.goals else ()
                trials = read_trials(request.trials, experiment.name, search.space, search.metric, others)
                history = search.history(trials, search.settings.get(SETTING, ""), context.is_active)
                # Without the setting random_state, experiments of different names draw different configurations.
                suggestion = suggester.suggest(search.space, search.settings, search.seed, history, count)
                if search.algorithm == pbt.METHOD["name"]:
                    self._provide(experiment, suggestion)
            except ValueError as error:
                reject(context, "suggest", experiment.name, error)
            except AbandonedError as error:
                reject(context, "suggest", experiment.name, error, grpc.StatusCode.CANCELLED)
            except OSError as error:
                rule = f"the trials' files must be writable in {self._files}, but: {error}"
                reject(context, "suggest", experiment.name, rule, grpc.StatusCode.FAILED_PRECONDITION)
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

    def _provide(self, experiment: Any, suggestion: Suggestion) -> None:
        """Make the trials' directories on Katib's volume."""
        if self._files.is_dir():
            provide(self._files / experiment.name, suggestion.proposals)
        else:
            LOG.warning("no volume: trials start anew", extra={"experiment": experiment.name, "path": str(self._files)})

    @contextlib.contextmanager
    def _admitted(self, context: grpc.ServicerContext, experiment: Any, count: int, trials: int) -> Iterator[None]:
        """Reject a call that is too large; large ones take turns."""
        if not 0 <= count <= MAX_REQUESTED:
            rule = f"current_request_number must be 0 to {MAX_REQUESTED:,}, but got {count:,}."
            reject(context, "suggest", experiment.name, rule)
        if trials > MAX_TRIALS:
            rule = f"a call must report at most {MAX_TRIALS:,} trials, but got {trials:,}."
            reject(context, "suggest", experiment.name, rule, grpc.StatusCode.RESOURCE_EXHAUSTED)
        if count <= LARGE_REQUESTED and trials <= LARGE_TRIALS:
            yield
            return
        if not self._large.acquire(blocking=False):
            rule = f"at most {self._large_at_once} large calls are computed at a time: ask again later."
            reject(context, "suggest", experiment.name, rule, grpc.StatusCode.RESOURCE_EXHAUSTED)
        try:
            yield
        finally:
            self._large.release()
