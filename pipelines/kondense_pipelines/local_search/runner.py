"""Run a Katib Experiment on this machine, trials as subprocesses of the template's own command.

The same file runs under Katib by ``kubectl apply``. What differs here: the primary container's command runs in this
environment (image, volumes, resources and probes are the cluster's), a relative path in it is relative to the
Experiment's file, and a trial under the Push collector prints ``name=value``, which is read as under StdOut. Katib
may start a trial or two more than maxTrialCount when metrics are unavailable; a local run never does.
"""

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from kondense.errors import InputError
from kondense.katib import metrics, page, template
from kondense.katib.spec import Experiment, ExperimentError, load
from kondense.search.history import Status
from kondense.search.space import SearchSpace
from kondense.search.suggesters import load_suggester

from kondense_pipelines.local.warm import PATIENT
from kondense_pipelines.local_search import baseline, local_rules, results
from kondense_pipelines.local_search.addresses import local_addresses
from kondense_pipelines.local_search.journal import Journal
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.process import GRACE_S, TrialProcess
from kondense_pipelines.local_search.state import Outcome, State, TrialRecord
from kondense_pipelines.paths import cache_dir

SEED = 0  # the suggestion service's: the same file proposes the same trials here and on a cluster
POLL_S = 0.05
JOURNAL, RESULTS, PAGE, TRIALS = "journal.jsonl", "results.json", "report.html", "trials"
METRICS = "metrics.log"  # a trial's file under the File collector


@dataclass(frozen=True)
class Result:
    """How a local run ended.

    ``best`` is the best trial at the largest resource reached, None if no trial has a value.
    """

    outcome: Outcome
    reason: str
    best: TrialRecord | None
    trials: int
    results_file: Path
    page_file: Path
    exit_code: int  # 0 succeeded, 1 failed, 128 + n stopped by signal n


def run(
    file: Path,
    output: Path,
    parallel: int | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    display: Display | None = None,
) -> Result:
    """Run an Experiment to its end, or continue the run that ``output`` holds.

    Args:
        file: the Experiment's YAML.
        output: directory of the journal, ``results.json``, ``report.html`` and the trials' logs. A finished trial
            in its journal is not repeated; one that was cut off starts again under its name.
        parallel: trials at a time, in place of the file's parallelTrialCount.
        overrides: variables for the trials that win over the template's literals, such as a local store's address;
            see ``addresses`` for those that a run finds itself.
        display: where progress goes; the terminal by default.

    Raises:
        ExperimentError: the Experiment breaks rules, all of them listed.
        JournalError: ``output`` is in use, damaged, or holds another Experiment's run.
        AddressError: the Experiment's data set could not be prepared here.
        ValueError: ``parallel`` is below 1.
    """
    if parallel is not None and parallel < 1:
        raise InputError(f"parallel must be at least 1, but got {parallel}.")
    experiment = load(file)
    if violations := local_rules.broken(experiment.document):
        raise ExperimentError(f"{file}, for a local run,", violations)
    machine = {**os.environ, **(overrides or {})}
    addresses = local_addresses(experiment, output, cache_dir(), machine)
    output.mkdir(parents=True, exist_ok=True)
    with Journal(output / JOURNAL, experiment=digest(experiment)) as journal:
        for name in (RESULTS, PAGE):
            for abandoned in output.glob(f".{name}.*"):  # half written at a kill
                abandoned.unlink()
        runner = _Runner(
            experiment=experiment,
            output=output,
            working_directory=file.resolve().parent,
            journal=journal,
            parallel=parallel or experiment.parallel,
            overrides={**addresses, **(overrides or {})},
            display=display or Display(),
        )
        with _signals(runner):
            return runner.run()


def digest(experiment: Experiment) -> str:
    """Return what identifies an Experiment for its continuation: all but the counts that Katib lets one edit."""
    spec = dict(experiment.document["spec"])
    for count in ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount"):
        spec.pop(count, None)
    text = json.dumps([experiment.name, spec], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class _Runner:
    """One run: its trials' processes and its state."""

    experiment: Experiment
    output: Path
    working_directory: Path
    journal: Journal
    parallel: int
    overrides: Mapping[str, str]
    display: Display
    processes: dict[str, TrialProcess] = field(default_factory=dict)
    signal_number: int = 0

    def __post_init__(self) -> None:
        self.state = State(self.experiment)
        self.space = SearchSpace.from_katib(self.experiment.parameters)
        for event in self.journal.events:
            self.state.apply(event)
        for record in self.state.records():
            if record.status is Status.RUNNING:
                self.state.cut_off(record.name)

    def run(self) -> Result:
        """Reconcile until the Experiment has ended or a signal asks to stop."""
        self.display.start(self.state)
        try:
            while not self.signal_number:
                self._collect()
                outcome, reason = self.state.outcome()
                if outcome is Outcome.RUNNING:
                    self._fill()
                else:
                    self._kill_trials(reason)
                    if outcome is Outcome.FAILED or not self._baseline_is_open():
                        return self._end(outcome, reason)
                self.display.update(self.state)
                time.sleep(POLL_S)
            self._stop_trials()
            for name in self.processes:
                self.state.cut_off(name)
            reason = f"stopped by {signal.Signals(self.signal_number).name}; start again to continue"
            return self._end(Outcome.INTERRUPTED, reason)
        finally:
            for process in self.processes.values():
                process.kill()
            self.display.stop(self.state)

    def _kill_trials(self, reason: str) -> None:
        """End the trials that still run when the experiment has ended."""
        names = [name for name in self.processes if name in self.state.trials]
        if names:
            self._stop_trials()
        for name in names:
            self._finish(name, Status.KILLED, f"the experiment ended: {reason}")

    def _baseline_is_open(self) -> bool:
        """Start the baseline when there is one; tell whether it is still to end."""
        assignments = baseline.read(self.experiment.document)
        if assignments is None:
            return False
        if self.state.baseline is None:
            name = f"{self.experiment.name}-baseline"
            self._record({"event": "baseline", "name": name, "assignments": assignments})
        assert self.state.baseline is not None
        if self.state.baseline.status is Status.CREATED:
            self._start(self.state.baseline)
        return not self.state.baseline.finished

    def _collect(self) -> None:
        """Enter every trial that has ended."""
        for name, process in list(self.processes.items()):
            failure = process.poll()
            if failure is None:
                continue
            if failure:
                self._finish(name, Status.FAILED, failure)
                continue
            observations = metrics.collect(
                self._reported(process), self.experiment.collector, self.experiment.objective
            )
            if observations[self.experiment.objective.metric].latest == metrics.UNAVAILABLE:
                reason = f"the trial reported no {self.experiment.objective.metric}"
                self._finish(name, Status.METRICS_UNAVAILABLE, reason)
            else:
                self._finish(name, Status.SUCCEEDED, "", observations)

    def _reported(self, process: TrialProcess) -> Iterator[str]:
        file = process.directory / METRICS if self.experiment.collector.kind == "File" else process.log
        if file.is_file():
            with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                yield from (line.removesuffix("\n") for line in lines)

    def _finish(
        self,
        name: str,
        status: Status,
        reason: str,
        observations: Mapping[str, metrics.Observation] | None = None,
    ) -> None:
        self.processes.pop(name)
        told = {key: vars(observation) for key, observation in (observations or {}).items()}
        self._record({"event": "finished", "name": name, "status": status.value, "reason": reason, "metrics": told})
        self.display.finished(self.state, self.state.record(name))
        self._write(Outcome.RUNNING, "")

    def _fill(self) -> None:
        """Start as many trials as there is room for; those first that the last runner left unfinished."""
        room = self.parallel - len(self.processes)
        if self.experiment.max_trials is not None:
            open_trials = self.experiment.max_trials - len(self.state.finished) - len(self.processes)
            room = min(room, open_trials)
        if room <= 0:
            return
        waiting = [record for record in self.state.trials.values() if record.status is Status.CREATED]
        if len(waiting) < room:
            self._suggest(room - len(waiting))
            waiting = [record for record in self.state.trials.values() if record.status is Status.CREATED]
        for record in waiting[:room]:
            self._start(record)

    def _suggest(self, count: int) -> None:
        suggester = load_suggester(self.experiment.algorithm)
        suggestion = suggester.suggest(self.space, self.state.settings, SEED, self.state.history(), count)
        trials = [
            {"name": proposal.name, "assignments": dict(proposal.assignments), "labels": dict(proposal.labels)}
            for proposal in suggestion.proposals
        ]
        change = self.state.settings_change(suggestion.settings)
        self._record({"event": "suggested", "trials": trials, "settings": change})

    def _start(self, record: TrialRecord) -> None:
        directory = self.output.resolve() / TRIALS / record.name
        is_file = self.experiment.collector.kind == "File"
        command = template.render(
            self.experiment,
            record.name,
            record.assignments,
            environment={"OMP_NUM_THREADS": str(self._threads()), **PATIENT, **os.environ},
            overrides=self.overrides,
            metrics_file=directory / METRICS if is_file else None,
        )
        process = TrialProcess(command, directory, self.working_directory)
        (directory / METRICS).unlink(missing_ok=True)
        self._record({"event": "started", "name": record.name})
        process.start()
        self.processes[record.name] = process

    def _threads(self) -> int:
        """Return the cores of one trial: trials that all take every core slow each other down."""
        return max(1, (os.cpu_count() or 1) // self.parallel)

    def _stop_trials(self) -> None:
        """Ask all trials to end, wait a little, then end them."""
        for process in self.processes.values():
            process.stop()
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and any(process.running() for process in self.processes.values()):
            time.sleep(POLL_S)
        for process in self.processes.values():
            process.kill()

    def _record(self, event: dict[str, Any]) -> None:
        """Write an event to the disk, then act on it."""
        event["time"] = round(time.time(), 3)
        self.journal.append(event)
        self.state.apply(event)

    def _write(self, outcome: Outcome, reason: str) -> None:
        results.write(self.output / RESULTS, self.state, outcome, reason)

    def _end(self, outcome: Outcome, reason: str) -> Result:
        self._write(outcome, reason)
        self.display.stop(self.state)
        page.write(self.output / PAGE, results.summary(self.state, outcome, reason))
        self.display.ended(self.state, outcome, reason, self.output / PAGE)
        exit_codes = {Outcome.SUCCEEDED: 0, Outcome.FAILED: 1}
        return Result(
            outcome=outcome,
            reason=reason,
            best=self.state.best(),
            trials=len(self.state.finished),
            results_file=self.output / RESULTS,
            page_file=self.output / PAGE,
            exit_code=exit_codes.get(outcome, 128 + self.signal_number),
        )


@contextlib.contextmanager
def _signals(runner: _Runner) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the run cleanly; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if runner.signal_number:
            signal.default_int_handler(number, frame)
        runner.signal_number = number

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
