"""Run scenarios on the cluster that KUBECONFIG names: ``python -m tests.e2e.cluster --help``."""

import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError

from tests.e2e.cluster import overlay
from tests.e2e.cluster.catalogue import OVERLAY, SCENARIOS
from tests.e2e.cluster.diagnosis import describe
from tests.e2e.cluster.failure import CheckError, check
from tests.e2e.cluster.options import parse_options
from tests.e2e.cluster.session import Session, open_session

UNINSTALL = "uninstall"
# What a cluster can do to us: refuse, be away, or hold other things than it should (OSError: AccessError, StoreError).
EXPECTED = (CheckError, OSError, ValueError, ApiException, HTTPError)
CLEANING = "cleaning up"


@dataclass(frozen=True)
class Result:
    """A row of the table."""

    scenario: str
    passed: bool
    seconds: float
    seen: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios; return 0 if all passed, 1 if not, 2 if none could begin."""
    options, listing = parse_options(sys.argv[1:] if arguments is None else arguments, list(SCENARIOS))
    if listing:
        for name, scenario in SCENARIOS.items():
            print(f"{name:18} {scenario.description} Needs {', '.join(scenario.needs)}.")
        return 0
    names = [name for name in SCENARIOS if name in (options.only or SCENARIOS) and name not in options.skip]
    with open_session(options) as session:
        try:
            check_beginning(session, names)
        except EXPECTED as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        results = run_all(session, names)
    print("\n".join(table(results)))
    return 0 if all(result.passed for result in results) else 1


def check_beginning(session: Session, names: Sequence[str]) -> None:
    """Raise CheckError when the scenarios cannot run, before anything is changed."""
    options = session.options
    session.kubectl("get", "namespace", options.namespace, timeout_s=60)
    if UNINSTALL in names:
        skip = f"or --skip {UNINSTALL}"
        check(not options.keep, f"{UNINSTALL} takes away what --keep is to leave: give one of them, {skip}")
        mine = options.uninstall or not overlay.stands(session)
        check(
            mine, f"an overlay stands in {options.namespace}: give --uninstall to have it taken away at the end, {skip}"
        )


def run_all(session: Session, names: Sequence[str]) -> list[Result]:
    """Run the scenarios one after another, clean up whatever happens, and return the table's rows."""
    results: list[Result] = []
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if session.options.pretend_gpus:
            overlay.pretend_gpus(session)
        for name in names:
            results.append(run_one(session, name))
    except KeyboardInterrupt:
        results.append(Result("interrupted", False, 0.0, "the rest was not run"))
    finally:
        results += finish(session)
        signal.signal(signal.SIGTERM, previous)
    return results


def run_one(session: Session, name: str) -> Result:
    """Run one scenario and say how it ended."""
    scenario, began_s = SCENARIOS[name], time.monotonic()
    session.seen.clear()
    session.say(f"{name}: {scenario.description}")
    try:
        if OVERLAY in scenario.needs:
            overlay.ensure(session)
        scenario.run(session)
    except Exception as error:  # the other scenarios go on, whatever it is
        if not isinstance(error, EXPECTED):
            traceback.print_exc()
        failure = error if isinstance(error, CheckError) else CheckError(f"{type(error).__name__}: {error}")
        session.say(f"{name}: FAILED")
        for line in describe(session.kubectl, failure):
            print(line, flush=True)
        return Result(name, False, time.monotonic() - began_s, str(failure))
    session.say(f"{name}: passed")
    return Result(name, True, time.monotonic() - began_s, "; ".join(session.seen))


def finish(session: Session) -> list[Result]:
    """Clean up unless the user keeps what was made; return a row if something is left."""
    if session.options.keep:
        kept = [*map(" ".join, session.objects.values()), *(text for text, _ in session.made)]
        session.say(f"kept: {'; '.join(kept) or 'nothing was made'}")
        return []
    began_s = time.monotonic()
    left = session.clean_up()
    try:
        overlay.take_away(session)
    except EXPECTED as error:
        left.append(f"the overlay: {error}")
    return [Result(CLEANING, False, time.monotonic() - began_s, "; ".join(left))] if left else []


def table(results: Sequence[Result]) -> Iterator[str]:
    """Yield the table's lines."""
    width = max((len(result.scenario) for result in results), default=0)
    yield f"{'scenario':{width}}  result  seconds  seen"
    for result in results:
        word = "passed" if result.passed else "FAILED"
        yield f"{result.scenario:{width}}  {word}  {result.seconds:7.1f}  {result.seen}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
