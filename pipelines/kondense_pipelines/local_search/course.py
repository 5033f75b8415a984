"""The course of a local run: trials are started, collected and recorded until the Experiment ends or a signal comes."""

import os
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kondense.failure import one_line
from kondense.files import ArtifactError, write_json
from kondense.katib import metrics, page, template
from kondense.katib.results import summary
from kondense.katib.spec import Experiment
from kondense.katib.template import LocalChanges
from kondense.search.history import Status
from kondense.search.pbt import DIRECTORY
from kondense.search.population_files import provide_one
from kondense.search.run import Outcome, Run, TrialRecord

from kondense_pipelines.local.warm import PATIENT
from kondense_pipelines.local_search import baseline
from kondense_pipelines.local_search.early_stop import EarlyStop
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.reports import UNREAD, Reports, shortened
from kondense_pipelines.local_search.room import check_room
from kondense_pipelines.local_search.trial_process import GRACE_S, TrialProcess, wait_for_one
from kondense_pipelines.local_search.warm_trials import WarmTrials
from kondense_pipelines.paths import cache_dir

POLL_S = 0.05
RESULTS, PAGE, TRIALS = "results.json", "report.html", "trials"
FILES = "files"  # of a population's trials, which their successors continue


@dataclass(frozen=True)
class Result:
    """The end of a local run.

    ``best`` is the best trial at the largest resource reached, None if no trial has a value.
    """

    outcome: Outcome
    reason: str
    best: TrialRecord | None
    trials: int
    results_file: Path
    page_file: Path
    exit_code: int  # 0 succeeded, 1 failed, 3 no trial keeps the constraints or meets `pick`, 128 + n for signal n


@dataclass
class Course:
    """One run, from its first trial or where it was stopped to its end: its state and its trials' processes."""

    experiment: Experiment
    reports: Reports
    early_stop: EarlyStop
    output: Path
    working_directory: Path
    state: Run
    parallel: int
    overrides: Mapping[str, str]
    display: Display
    warm: WarmTrials
    processes: dict[str, TrialProcess] = field(default_factory=dict)
    signal_number: int = 0

    def run(self) -> Result:
        """Collect and start trials until the Experiment has ended or a signal requests the end."""
        self.display.start(self.state)
        try:
            while not self.signal_number:
                self._collect()
                outcome, reason = self.state.outcome()
                if outcome is Outcome.RUNNING:
                    for trial in self.state.startable(self.parallel):
                        self._start(trial)
                else:
                    self._kill_trials(reason)
                    if outcome is Outcome.FAILED or not self._baseline_is_open():
                        return self._end(outcome, reason)
                self.display.update(self.state)
                wait_for_one(self.processes.values(), POLL_S)
            self._stop_trials()
            self.state.cut_off()
            reason = f"stopped by {signal.Signals(self.signal_number).name}; start again to continue"
            return self._end(Outcome.INTERRUPTED, reason)
        finally:
            for process in self.processes.values():
                process.kill()
            self.display.stop(self.state)

    def _kill_trials(self, reason: str) -> None:
        """End the trials that are still running when the experiment has ended."""
        names = [name for name in self.processes if name in self.state.trials]
        if names:
            self._stop_trials()
        for name in names:
            self._finish(name, Status.KILLED, f"the experiment ended: {reason}")

    def _baseline_is_open(self) -> bool:
        """Start the baseline if there is one; return whether it is unfinished."""
        assignments = baseline.read(self.experiment.document)
        if assignments is None:
            return False
        if self.state.baseline is None:
            self.state.record("baseline", name=f"{self.experiment.name}-baseline", assignments=assignments)
        assert self.state.baseline is not None
        if self.state.baseline.status is Status.CREATED:
            self._start(self.state.baseline)
        return not self.state.baseline.finished

    def _collect(self) -> None:
        """Record every trial that has ended."""
        for name, process in list(self.processes.items()):
            failure = process.poll()
            if failure is None:
                self.early_stop.check(name, process)
                continue
            try:
                self.reports.collect(process.directory)
                reading = self.reports.read(process.directory, process.log)
            except (ArtifactError, OSError, shutil.Error, RecursionError) as error:
                failure = failure or f"its reports cannot be read: {one_line(error)}"
                reading = UNREAD
            curve = shortened(reading.curve, self.early_stop.first)
            if failure and name not in self.early_stop.stopped:
                check_room((self.output, cache_dir()), name, failure)
                self._finish(name, Status.FAILED, failure, curve=curve)
                continue
            objective, observations = self.experiment.objective, reading.observations
            if observations[objective.metric].latest == metrics.UNAVAILABLE:
                self._finish(name, Status.METRICS_UNAVAILABLE, f"the trial reported no {objective.metric}")
                continue
            chosen, value, reason = metrics.picked(observations, objective)
            reason = reason or self.state.search.missing(chosen)
            status = Status.SUCCEEDED
            if name in self.early_stop.stopped:
                status, reason = Status.EARLY_STOPPED, self.early_stop.reason(name, reading.curve)
            self._finish(name, status, reason, value=value, metrics=chosen, curve=curve)

    def _finish(self, name: str, status: Status, reason: str, *, value: float | None = None, **results: Any) -> None:
        del self.processes[name]
        self.state.record("finished", name=name, status=status.value, reason=reason, value=value, **results)
        self.display.finished(self.state, self.state.trial(name))
        self._write(Outcome.RUNNING, "")

    def _start(self, trial: TrialRecord) -> None:
        directory = self.output.resolve() / TRIALS / trial.name
        command = template.render(
            self.experiment,
            trial.name,
            trial.assignments,
            environment={"OMP_NUM_THREADS": str(self._threads()), **PATIENT, **os.environ},
            overrides=self.overrides,
            metrics_file=self.reports.own_path(directory),
            changes=self._changes(trial),
        )
        process = TrialProcess(command, directory, command.working_directory or self.working_directory, self.warm)
        self.reports.clear(directory)
        self.early_stop.begin(trial, self.state.finished)
        self.state.record("started", name=trial.name)
        process.start()
        self.processes[trial.name] = process

    def _changes(self, trial: TrialRecord) -> LocalChanges:
        """Return the run's changes, with the trial's own files (pbt) in the place of the directory of all."""
        changes, image = self.reports.changes, self.state.search.settings.get(DIRECTORY, "")
        if not image or self.state.search.algorithm != "pbt":
            return changes
        files = provide_one(self.output.resolve() / FILES, trial.name, trial.parent)
        return replace(changes, maps={image: str(files), **changes.maps})

    def _threads(self) -> int:
        """Return the cores of one trial: trials that all use every core slow each other down."""
        return max(1, (os.cpu_count() or 1) // self.parallel)

    def _stop_trials(self) -> None:
        """Terminate all trials, and kill them after GRACE_S."""
        for process in self.processes.values():
            process.stop()
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and any(process.running() for process in self.processes.values()):
            time.sleep(POLL_S)
        for process in self.processes.values():
            process.kill()

    def _write(self, outcome: Outcome, reason: str) -> dict[str, Any]:
        """Write the results so far, and return them."""
        results = summary(
            self.experiment.document,
            self.state.search,
            list(self.state.trials.values()),
            outcome=outcome,
            reason=reason,
            best=self.state.best(),
            finished=self.state.finished,
            baseline=self.state.baseline,
        )
        write_json(self.output / RESULTS, results)
        return results

    def _end(self, outcome: Outcome, reason: str) -> Result:
        results = self._write(outcome, reason)
        self.display.stop(self.state)
        page.write(self.output / PAGE, results)
        self.display.ended(self.state, outcome, reason, self.output / PAGE)
        search, best = self.state.search, self.state.best()
        short = best is not None and not (search.feasible(best) and search.is_picked(best))
        exit_codes = {Outcome.SUCCEEDED: 3 if short else 0, Outcome.FAILED: 1}
        return Result(
            outcome=outcome,
            reason=reason,
            best=best,
            trials=len(self.state.finished),
            results_file=self.output / RESULTS,
            page_file=self.output / PAGE,
            exit_code=exit_codes.get(outcome, 128 + self.signal_number),
        )
