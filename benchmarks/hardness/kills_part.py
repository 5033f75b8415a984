"""The part `kills`: processes of runs and searches are killed, and the results compared with the undisturbed ones.

    python -m benchmarks.hardness --parts kills --run-kills 40 --search-kills 20 --kill-seed 0

A run: `kondense run` on digits, two candidates of a small network, 3 epochs. A search: 4 trials of 3 epochs, which
Kubernetes would start again after a kill (backoffLimit). Four kills a case, at most 8 s apart.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.hardness.kills import RUN, SEARCH, Case, Place, Subject, kondense, run_case

PER_CASE = 4
SPREAD_S = {"run": 8.0, "search": 5.0}
FAST = {
    "train.epochs": "3",
    "evaluate.robustness_images": "0",
    "evaluate.latency_seconds": "0.05",
    "evaluate.further_latency_seconds": "0",
}
EXPERIMENT = Path(__file__).parents[2] / "manifests" / "experiments" / "random.yaml"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    parser.add_argument("--run-kills", type=int, default=40, help="kills of runs")
    parser.add_argument("--search-kills", type=int, default=20, help="kills of searches")
    parser.add_argument("--kill-seed", type=int, default=0, help="of the kinds and times of kills")


def run(arguments: argparse.Namespace) -> bool:
    """Run the cases, print the table, and return whether all results are equal and nothing is left."""
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        top = Path(scratch)
        whole_run = Subject("run", run_command(), RUN)
        search = Subject("search", search_command(top), SEARCH, {"DATASET_URI": str(dataset(top))})
        runs = cases(whole_run, top / "run", kills=arguments.run_kills, seed=arguments.kill_seed)
        searches = cases(search, top / "search", kills=arguments.search_kills, seed=arguments.kill_seed)
    print("\n".join(table({"run": runs, "search": searches})))
    return not any(case.faults for case in [*runs, *searches])


def run_command() -> list[str]:
    """Return the command of a run that takes half a minute."""
    settings = [word for name, value in FAST.items() for word in ("--set", f"{name}={value}")]
    plan = ["--dataset", "digits", "--network", "lenet300", "--candidates", "quantized", "--no-check"]
    return kondense("run", *plan, *settings, "--output", "out")


def search_command(top: Path) -> list[str]:
    """Write a small experiment and return the command that runs it."""
    document: dict[str, Any] = yaml.safe_load(EXPERIMENT.read_text())
    document["metadata"].pop("annotations")  # no baseline
    document["spec"] |= {"parallelTrialCount": 1, "maxTrialCount": 4, "maxFailedTrialCount": 0}
    job = document["spec"]["trialTemplate"]["trialSpec"]["spec"]
    del job["podFailurePolicy"]
    arguments = job["template"]["spec"]["containers"][0]["args"]
    arguments += ["--train.network=lenet300", "--train.epochs=3", "--train.max_epochs=3"]
    file = top / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return kondense("search", str(file), "--output", "out")


def dataset(top: Path) -> Path:
    """Make the data set of the trials."""
    directory = top / "digits"
    words = ["data_prep", "--dataset-dir", str(directory), "--dataset-name", "digits", "--image-size", "16"]
    subprocess.run([sys.executable, "-m", "kondense.cli", *words], check=True, capture_output=True)
    return directory


def cases(subject: Subject, top: Path, *, kills: int, seed: int) -> list[Case]:
    """Run the undisturbed case, then those with kills, and compare each with it."""
    results: list[Case] = []
    rng = random.Random(f"{seed} {subject.name}")
    made = 0
    while made < kills or not results:
        count = min(PER_CASE, kills - made) if results else 0
        place = Place(top / str(len(results)))
        case = run_case(subject, place, kills=count, rng=rng, spread_s=SPREAD_S[subject.name])
        if results and case.digests != results[0].digests:
            case.faults.append("the results differ from those of the undisturbed case")
        if not case.digests:
            case.faults.append("there are no results to compare")
        made += case.kills.total() - case.kills["no time left"]
        results.append(case)
        print(
            f"{subject.name} {len(results) - 1}: {dict(case.kills)}, {case.again} commands again, {case.faults}",
            flush=True,
        )
        if len(results) > kills + 1:
            case.faults.append("too few kills: the commands end before them")
            break
    return results


def table(found: Mapping[str, Sequence[Case]]) -> list[str]:
    """Return the lines of the table: kills of each kind, and what was wrong."""
    lines = [
        "| command | kills | of them | given again | results equal | left behind or wrong |",
        "|---|---|---|---|---|---|",
    ]
    for name, (undisturbed, *killed) in found.items():
        kinds: Counter[str] = sum((case.kills for case in killed), Counter())
        del kinds["no time left"]
        equal = sum(case.digests == undisturbed.digests for case in killed)
        wrong = sum(len(case.faults) for case in [undisturbed, *killed])
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        again = sum(case.again for case in killed)
        lines.append(f"| {name} | {kinds.total()} | {text} | {again} | {equal} of {len(killed)} | {wrong} |")
    return lines
