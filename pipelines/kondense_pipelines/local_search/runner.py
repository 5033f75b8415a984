"""Run a Katib Experiment on this machine, with trials as subprocesses of the template's own command.

The same file runs under Katib by ``kubectl apply``. Differences of a local run: the primary container's command runs in
this environment (image, volumes, resources and probes apply to the cluster only), once per replica of a PyTorchJob or
TrainJob, a relative path in it is relative to the Experiment's file, and a trial with the Push collector prints
``name=value``, which is parsed as under StdOut. Katib may start one or two trials more than maxTrialCount when metrics
are unavailable; a local run never does.
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from kondense.errors import InputError
from kondense.katib import template
from kondense.katib.spec import CANNOT_RUN, ExperimentError, load
from kondense.katib.template import NO_CHANGES, LocalChanges
from kondense.search.journal import Journal
from kondense.search.pick import read_pick
from kondense.search.run import Run

from kondense_pipelines.local_search import local_rules
from kondense_pipelines.local_search.addresses import local_addresses
from kondense_pipelines.local_search.course import PAGE, RESULTS, Course, Result
from kondense_pipelines.local_search.early_stop import EarlyStop, groups
from kondense_pipelines.local_search.identity import digest, read_earlier
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.reports import Reports
from kondense_pipelines.local_search.warm_trials import WarmTrials
from kondense_pipelines.paths import cache_dir

JOURNAL = "journal.jsonl"
WARM_LOG = "warm-server.log"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOG = logging.getLogger("search")


def run(
    file: Path,
    output: Path,
    parallel: int | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    changes: LocalChanges = NO_CHANGES,
    pick: str = "",
    earlier: Sequence[str] = (),
    display: Display | None = None,
) -> Result:
    """Run an Experiment to its end, or continue the run in ``output``.

    Args:
        file: the Experiment's YAML.
        output: directory of the journal, ``results.json``, ``report.html`` and the trials' logs. A finished trial
            in its journal is not repeated; an interrupted one starts again under its name.
        parallel: trials at a time, instead of the file's parallelTrialCount.
        overrides: variables of the trials that take precedence over the template's literals, such as a local store's
            address; ``addresses`` lists those that a run sets itself.
        changes: what replaces the image's paths and command.
        pick: the rule by which the result is picked (``kondense.search.pick``); empty: the best in the objective.
        earlier: searches whose trials this one starts from (``kondense.katib_search.earlier``). They are read once:
            a continued run has them in ``output``.
        display: shows the progress; on the terminal by default.

    Raises:
        ExperimentError: the Experiment breaks rules, all of which are listed.
        JournalError: ``output`` is in use, damaged, or belongs to another Experiment.
        AddressError: the Experiment's data set could not be prepared on this machine.
        ValueError: ``parallel`` is below 1, or ``pick`` is no rule.
    """
    if parallel is not None and parallel < 1:
        raise InputError(f"parallel must be at least 1, but got {parallel}.")
    experiment = load(file)
    if earlier:
        experiment = read_earlier(experiment, earlier, output)
    reported = (experiment.objective.metric, *experiment.objective.additional)
    experiment = replace(experiment, search=replace(experiment.search, pick=read_pick(pick, reported)))
    if violations := local_rules.broken(experiment.document, changes):
        raise ExperimentError(str(file), violations, experiment.lines, what=CANNOT_RUN)
    reports = Reports(experiment, changes)
    if reports.fixed is not None and (parallel or experiment.search.parallel or 1) > 1:
        LOG.warning("trials run one at a time: all of them write to %s", reports.fixed)
        parallel = 1
    machine = {**os.environ, **(overrides or {})}
    template.check(experiment, environment=machine, changes=changes)
    addresses = local_addresses(experiment, output, cache_dir(), machine)
    output.mkdir(parents=True, exist_ok=True)
    with Journal(output / JOURNAL, experiment=digest(experiment, file.resolve().parent, changes)) as journal:
        for name in (RESULTS, PAGE):
            for abandoned in output.glob(f".{name}.*"):  # incomplete after a kill
                abandoned.unlink()
        reports.prepare(started=any(event["event"] == "started" for event in journal.events))
        with WarmTrials(output / WARM_LOG) as warm:
            course = Course(
                experiment=experiment,
                reports=reports,
                early_stop=EarlyStop(
                    reports,
                    local_rules.early_stopping(experiment.document["spec"]),
                    experiment.search.goal,
                    groups(experiment.search),
                ),
                output=output,
                working_directory=file.resolve().parent,
                state=Run(experiment.search, journal),
                parallel=parallel or experiment.search.parallel or 1,
                overrides={**addresses, **(overrides or {})},
                display=display or Display(),
                warm=warm,
            )
            with _signals(course):
                return course.run()


@contextlib.contextmanager
def _signals(course: Course) -> Iterator[None]:
    """Stop the run on SIGINT, SIGTERM and SIGHUP in an orderly way, and on a second one immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if course.signal_number:
            signal.default_int_handler(number, frame)
        course.signal_number = number

    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # under nohup not SIGHUP
    previous = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
