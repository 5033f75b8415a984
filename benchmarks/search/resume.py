"""Hyperband of R = 27, eta = 3 on real training, promoted trials resuming against starting anew.

Every trial is the trial stage itself, with its checkpoints in a store. Without resuming each trial has a store of its
own, so that it finds no checkpoint. Both runs propose the same configurations as long as their losses are equal, and
equal losses to the last digit are checked: the saving is for the same result. A configuration whose loss diverges is a
failed trial in both.
"""

import contextlib
import io
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run as data_prep
from kondense.logging import to_stdout
from kondense.search.history import History, Status, Trial
from kondense.search.ledger import identity
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.training.trainer import NonFiniteLossError
from kondense.trial.config import TrialConfig
from kondense.trial.stage import run as trial

MAX_EPOCHS = 27
IMAGES = 2_500  # per split at most, of Fashion-MNIST
SETTINGS = {"resource_name": "epochs"}
SPACE = SearchSpace(
    (
        Parameter("lr", "double", 0.003, 0.3, distribution="logUniform"),
        Parameter("momentum", "double", 0.6, 0.98),
        Parameter("weight_decay", "double", 1e-6, 1e-2, distribution="logUniform"),
        Parameter("epochs", "int", 1, MAX_EPOCHS),
    )
)
FIELDS = {"lr": "learning_rate"}  # of the train stage, where a parameter of the space has another name
EPOCH = re.compile(r"^epoch \d+/", re.MULTILINE)


def measure() -> list[dict[str, Any]]:
    """Run one cycle of the brackets with and without resuming."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        dataset_dir = Path(scratch) / "dataset"
        data_prep(DataPrepConfig(dataset_name="fashion_mnist", limit=IMAGES), dataset_dir=dataset_dir)
        runs = {resumes: _search(dataset_dir, Path(scratch) / str(resumes), resumes) for resumes in (False, True)}
    same = [entry["score"] for entry in runs[False]] == [entry["score"] for entry in runs[True]]
    rows = []
    for bracket in (None, *sorted({entry["bracket"] for entry in runs[True]})):
        row: dict[str, Any] = {"bracket": "all" if bracket is None else str(bracket), "same_losses": same}
        for resumes, entries in runs.items():
            own = [entry for entry in entries if bracket in (None, entry["bracket"])]
            name = "resuming" if resumes else "anew"
            row[f"trials_{name}"] = len(own)
            row[f"epochs_{name}"] = sum(entry["epochs"] for entry in own)
            row[f"wall_s_{name}"] = round(sum(entry["wall_s"] for entry in own), 2)
        rows.append(row)
    return rows


def _search(dataset_dir: Path, store: Path, resumes: bool) -> list[dict[str, Any]]:
    suggester, issued = load_suggester("hyperband"), ""
    trials: list[Trial] = []
    entries = []
    for _ in range(suggester.planned_trials(SETTINGS, SPACE) or 0):
        suggestion = suggester.suggest(SPACE, SETTINGS, 0, History(tuple(trials), issued, "maximize", "resume"), 1)
        issued, (proposal,) = suggestion.settings["issued"], suggestion.proposals
        named = identity(proposal.name)
        assert named is not None
        settings = {f"train.{FIELDS.get(name, name)}": value for name, value in proposal.assignments.items()}
        settings |= {"train.network": "lenet5", "train.max_epochs": str(MAX_EPOCHS), "train.schedule": "constant"}
        config = TrialConfig(
            dataset_uri=str(dataset_dir),
            store_uri=str(store if resumes else store / proposal.name),
            trial_name=proposal.name,
            settings=json.dumps(settings),
            device="cpu",
        )
        output, start = io.StringIO(), time.perf_counter()
        score = None
        with contextlib.redirect_stdout(output), to_stdout(), contextlib.suppress(NonFiniteLossError):
            score = trial(config)["validation_accuracy"]
        wall_s = time.perf_counter() - start
        epochs = len(EPOCH.findall(output.getvalue()))
        entries.append({"bracket": named.bracket, "score": score, "epochs": epochs, "wall_s": wall_s})
        status = Status.SUCCEEDED if score is not None else Status.FAILED
        trials.append(Trial(proposal.name, proposal.assignments, status, score))
    return entries


def table(rows: list[dict[str, Any]]) -> list[str]:
    titles = f"{'bracket':<9}{'trials':>7}{'epochs: anew':>14}{'resuming':>10}{'share':>7}"
    lines = [f"{titles}{'seconds: anew':>15}{'resuming':>10}{'share':>7}"]
    for row in rows:
        epochs, wall_s = row["epochs_resuming"] / row["epochs_anew"], row["wall_s_resuming"] / row["wall_s_anew"]
        lines.append(
            f"{row['bracket']:<9}{row['trials_resuming']:>7}{row['epochs_anew']:>14}{row['epochs_resuming']:>10}"
            f"{epochs:>7.3f}{row['wall_s_anew']:>15.1f}{row['wall_s_resuming']:>10.1f}{wall_s:>7.3f}"
        )
    same = "equal to the last digit" if rows[0]["same_losses"] else "DIFFERENT"
    return [*lines, f"The validation accuracies of both runs, trial by trial: {same}."]
