"""The part `kills`: processes of runs and searches are killed, and the results compared with the undisturbed ones.

    python -m benchmarks.hardness --parts kills --run-kills 40 --search-kills 20 --kill-seed 0

A run: `kondense run` on digits, the teacher and a quantized candidate, 2 epochs. A search: Hyperband with 6 trials of 1
or 3 epochs, two at a time, one of them promoted, which Kubernetes would start again after a kill (backoffLimit). Ten
kills a case; the times between two are even between 0 and a fifth of the quickest case's time so far. With `--keep DIR`
the same command goes on behind the cases that have been finished.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from kondense.files import file_digests
from kondense.json_text import json_object
from kondense.store.bucket import ObjectStore
from kondense.store.connection import connection_from_environment
from kondense_pipelines.local.store import local_store

from benchmarks.hardness.kills import RUN, SEARCH, Case, Place, Subject, kondense, run_case

PER_CASE = {"run": 10, "search": 10}
CASE = "case.json"
MODELS = (".safetensors", ".kz", ".onnx")  # what the random parts of a report do not reach
TIMED = ("latency_ms", "seconds", "started")
FAST = {
    "train.epochs": "2",
    "evaluate.robustness_images": "0",
    "evaluate.latency_seconds": "0.05",
    "evaluate.further_latency_seconds": "0",
}
EXPERIMENT = Path(__file__).parents[2] / "manifests" / "experiments" / "hyperband.yaml"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    parser.add_argument("--run-kills", type=int, default=40, help="kills of runs")
    parser.add_argument("--search-kills", type=int, default=20, help="kills of searches")
    parser.add_argument("--kill-seed", type=int, default=0, help="of the kinds and times of kills")
    parser.add_argument("--keep", type=Path, help="directory of the cases; finished ones in it are not repeated")


def run(arguments: argparse.Namespace) -> bool:
    """Run the cases, print the table, and return whether all results are equal and nothing is left."""
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        top = (arguments.keep or Path(scratch)).absolute()
        top.mkdir(parents=True, exist_ok=True)
        wanted = (
            (Subject("run", run_command(), RUN, models_of_run), arguments.run_kills),
            (Subject("search", search_command(top), SEARCH, trials_of_search), arguments.search_kills),
        )
        found = {
            subject.name: cases(subject, top / subject.name, kills=kills, seed=arguments.kill_seed)
            for subject, kills in wanted
            if kills
        }
    print("\n".join(table(found)))
    return not any(case.faults for each in found.values() for case in each)


def run_command() -> list[str]:
    """Return the command of a run that takes half a minute."""
    settings = [word for name, value in FAST.items() for word in ("--set", f"{name}={value}")]
    plan = ["--dataset", "digits", "--network", "lenet300", "--candidates", "quantized", "--no-check"]
    return kondense("run", *plan, *settings, "--output", "out")


def models_of_run(place: Place) -> dict[str, str]:
    """Return the digests of all models that a run has written."""
    return {name: digest for name, digest in file_digests(place.out).items() if name.endswith(MODELS)}


def search_command(top: Path) -> list[str]:
    """Write a small experiment and its data set, and return the command that runs it."""
    data = top / "digits"
    words = ["data_prep", "--dataset-dir", str(data), "--dataset-name", "digits", "--image-size", "16"]
    subprocess.run([sys.executable, "-m", "kondense.cli", *words], check=True, capture_output=True)
    document: dict[str, Any] = yaml.safe_load(EXPERIMENT.read_text())
    document["metadata"].pop("annotations")  # no baseline
    spec = document["spec"]
    spec |= {"parallelTrialCount": 2, "maxTrialCount": 6, "maxFailedTrialCount": 0}
    spec["algorithm"]["algorithmSettings"] = [
        {"name": "resource_name", "value": "epochs"},
        {"name": "r_l", "value": "3"},
        {"name": "min_resource", "value": "1"},
        {"name": "eta", "value": "3"},
    ]
    (epochs,) = (each for each in spec["parameters"] if each["name"] == "epochs")
    epochs["feasibleSpace"] = {"min": "1", "max": "3"}
    job = spec["trialTemplate"]["trialSpec"]["spec"]
    del job["podFailurePolicy"]
    job["backoffLimit"] = 6
    container = job["template"]["spec"]["containers"][0]
    container["args"] += ["--train.network=lenet300", "--train.max_epochs=3"]
    for variable in container["env"]:
        if variable["name"] == "DATASET_URI":
            variable["value"] = str(data)
    file = top / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return kondense("search", str(file), "--output", "out")


def trials_of_search(place: Place) -> dict[str, str]:
    """Return what a search has recorded of every trial, and the digests of the models in its store."""
    results = json_object((place.out / "results.json").read_bytes(), "results.json")
    found = {"outcome": results["outcome"], "best": results["best"]["name"] if results["best"] else ""}
    for trial in results["trials"]:
        kept = {name: value for name, value in trial.items() if name not in TIMED}
        kept["metrics"] = {name: value for name, value in trial["metrics"].items() if name not in TIMED}
        found[trial["name"]] = str(kept)
    with local_store(place.store, {}) as variables:
        connection = connection_from_environment(variables)
        store = ObjectStore("minio://mlpipeline", bucket="mlpipeline", connection=connection)
        models = Path(tempfile.mkdtemp(dir=place.top))
        for key in store.list("kondense/trials/trials"):
            if key.endswith(MODELS):
                (models / key).parent.mkdir(parents=True, exist_ok=True)
                store.download_file(key, models / key)
    return found | file_digests(models)


def cases(subject: Subject, top: Path, *, kills: int, seed: int) -> list[Case]:
    """Run the undisturbed case, then those with kills, and compare each with it."""
    results: list[Case] = []
    made = 0
    while made < kills or not results:
        place = Place(top / str(len(results)))
        if (kept := place.top / CASE).exists():
            case = Case.read(kept)
        else:
            shutil.rmtree(place.top, ignore_errors=True)
            count = min(PER_CASE[subject.name], kills - made) if results else 0
            # The quickest case so far: how busy the machine is changes.
            spread_s = min((case.seconds for case in results), default=0.0) * 2 / PER_CASE[subject.name]
            rng = random.Random(f"{seed} {subject.name} {len(results)}")
            case = run_case(subject, place, kills=count, rng=rng, spread_s=spread_s)
            if not case.results:
                case.faults.append("there are no results to compare")
            elif results and (differing := differences(results[0].results, case.results)):
                case.faults.append(f"not as in the undisturbed case: {', '.join(differing)}")
            case.write(kept)
        made += case.kills.total() - case.kills["no time left"]
        results.append(case)
        print(
            f"{subject.name} {len(results) - 1}: {dict(case.kills)}, {case.again} commands again, "
            f"{case.seconds:.0f} s, {len(case.results)} results, {case.faults}",
            flush=True,
        )
        if len(results) > kills + 1:
            case.faults.append("too few kills: the commands end before them")
            break
    return results


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the names of the results that differ or that only one of the cases has."""
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if expected.get(name) != found.get(name)]


def table(found: Mapping[str, Sequence[Case]]) -> list[str]:
    """Return the lines of the table: kills of each kind, and what was wrong."""
    lines = [
        "| command | kills | of them | given again | results equal | left behind or wrong |",
        "|---|---|---|---|---|---|",
    ]
    for name, (undisturbed, *killed) in found.items():
        kinds: Counter[str] = sum((case.kills for case in killed), Counter())
        del kinds["no time left"]
        equal = sum(bool(case.results) and case.results == undisturbed.results for case in killed)
        wrong = sum(len(case.faults) for case in [undisturbed, *killed])
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        again = sum(case.again for case in killed)
        lines.append(f"| {name} | {kinds.total()} | {text} | {again} | {equal} of {len(killed)} | {wrong} |")
    return lines
