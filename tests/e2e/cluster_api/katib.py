"""Katib: Experiments whose trials are proposed by our own suggesters and played.

Honest in: counts, parallelism, failures (maxFailedTrialCount), Jobs with their rules for evicted pods, names, labels,
conditions and observations, resources of promoted trials. A trial's hyperparameters are read by the trial's own
Config, so that a bad one fails with its real text. Played: training. A trial leaves a checkpoint in the object store;
its value is made up. The suggestion is a pod without a service: deleted, it comes again.
"""

import hashlib
import statistics
import zlib
from typing import Any

from kondense.katib_search.cluster import LABEL
from kondense.katib_search.job import COMMAND, trial_config, variable
from kondense.search.history import History, Status, Trial
from kondense.search.ledger import SETTING, digest
from kondense.search.median_stop import MedianStop
from kondense.search.space import SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.store.open import open_store

from tests.e2e.cluster_api.objects import Object
from tests.e2e.cluster_api.pods import End, play_job, play_pod, start_pod
from tests.e2e.cluster_api.world import Player, World, owner
from tests.support.fake_kubernetes import make_trial

LONG = 100  # epochs: such a trial runs until its first pod is taken away
KILLED = "suggestion-killed"
SUGGESTION = "katib.kubeflow.org/suggestion"
REASONS = {"Succeeded": "ExperimentMaxTrialsReached", "Failed": "ExperimentFailed"}


class Search:
    """One Experiment and its trials."""

    def __init__(self, world: World, experiment: Object) -> None:
        self.world, self.experiment = world, experiment
        self.name, self.spec = experiment["metadata"]["name"], experiment["spec"]
        settings = self.spec["algorithm"].get("algorithmSettings") or []
        self.settings = {each["name"]: str(each["value"]) for each in settings}
        self.resource = self.settings.get("resource_name")
        self.space = SearchSpace.from_katib(self.spec["parameters"])
        self.trials: dict[str, Trial] = {}
        self.running = 0
        self.suggestion: Object | None = None
        self.suggestions = 0
        if KILLED in self.name:  # there must be a search left when its suggestion is killed
            world.held[self.name] = lambda: self.suggestions > 1

    def play(self) -> Player:
        """Run the Experiment to its end."""
        while self.world.alive("experiments", self.experiment):
            self.keep_suggestion()
            if self.failed() and self.failed() >= self.spec["maxFailedTrialCount"]:
                self.end("Failed", "Experiment has failed because max failed trial count has reached")
                return
            if self.finished() >= self.spec["maxTrialCount"]:
                self.end("Succeeded", "Experiment has succeeded because max trial count has reached")
                return
            self.fill()
            yield

    def failed(self) -> int:
        """Return how many trials have failed."""
        return sum(trial.status is Status.FAILED for trial in self.trials.values())

    def finished(self) -> int:
        """Return how many trials have ended."""
        return len(self.trials) - self.running

    def keep_suggestion(self) -> None:
        """Make the suggestion's pod when there is none, as its Deployment does."""
        if self.suggestion is None or not self.world.alive("pods", self.suggestion):
            labels = {SUGGESTION: self.name, LABEL: self.name}
            template = {"spec": {"containers": [{"name": "suggestion", "image": "suggestion"}]}}
            prefix = f"{self.name}-{self.spec['algorithm']['algorithmName']}"
            self.suggestions += 1
            self.suggestion = start_pod(self.world, template, prefix=prefix, owned_by=self.experiment, labels=labels)

    def fill(self) -> None:
        """Start as many trials as there is room for."""
        room = min(self.spec["parallelTrialCount"] - self.running, self.spec["maxTrialCount"] - len(self.trials))
        if room <= 0:
            return
        objective = self.spec["objective"]["type"]
        history = History(tuple(self.trials.values()), self.settings.get(SETTING, ""), objective, self.name)
        suggester = load_suggester(self.spec["algorithm"]["algorithmName"])
        reply = suggester.suggest(self.space, self.settings, 0, history, room)
        self.settings |= reply.settings
        for proposal in reply.proposals:
            self.trials[proposal.name] = Trial(proposal.name, proposal.assignments, Status.RUNNING)
            self.running += 1
            self.world.players.append(self.play_trial(proposal.name, dict(proposal.assignments)))

    def play_trial(self, name: str, assignments: dict[str, str]) -> Player:
        """Run one trial and note its end."""
        world = self.world
        trial = self.write_trial(name, assignments, "Running")
        body = self.spec["trialTemplate"]["trialSpec"]
        metadata = {"name": name, "labels": {LABEL: self.name}, "ownerReferences": owner(trial)}
        job = world.create("jobs", {**body, "metadata": metadata})
        succeeded = yield from play_job(world, job, lambda pod, number: self.attempt(pod, number, name, assignments))
        if not world.alive("experiments", self.experiment):
            return
        value = self.value(name, assignments)
        ended, state = (Status.SUCCEEDED, "Succeeded") if succeeded else (Status.FAILED, "Failed")
        if succeeded and self.stops(value):
            ended, state = Status.EARLY_STOPPED, "EarlyStopped"
        self.trials[name] = Trial(name, assignments, ended, value if succeeded else None)
        self.running -= 1
        self.write_trial(name, assignments, state, value if succeeded else None)
        if not self.spec["trialTemplate"].get("retain"):
            world.delete("jobs", name)

    def attempt(self, pod: Object, number: int, name: str, assignments: dict[str, str]) -> Any:
        """Play one pod of a trial: the generator returns how it ended and its last words."""
        uid, world = pod["metadata"]["uid"], self.world
        container = pod["spec"]["containers"][0]
        if list(container["command"])[1:] != COMMAND:
            ended = yield from play_pod(world, pod, lambda: End.SUCCEEDED)
            return ended, ""
        store = open_store(variable(container, "STORE_URI"))
        try:
            config = trial_config(self.spec["trialTemplate"], name, assignments)
        except ValueError as error:
            world.logs[uid] = f"error: {error}\n"
            if "no-failure-reason" in world.faults:
                return End.FAILED, ""
            store.write(f"failures/{name}.txt", f"{error}\n".encode())
            return End.FAILED, str(error)
        key = f"checkpoints/train/{digest(assignments, self.resource)}"
        resumed = bool(store.list(key)) and "nothing-resumes" not in world.faults
        world.logs[uid] = f"resumed at epoch 1/{config.train.epochs} step 0 from a checkpoint\n" if resumed else ""
        store.write(f"{key}/{number + 1:06d}-00000000", b"a checkpoint")
        lasting = config.train.epochs >= LONG and number == 0
        first = next(iter(self.trials)) == name

        def end() -> End | None:
            held = not first and not world.held.get(self.name, lambda: True)()
            return None if lasting or held else End.SUCCEEDED

        ended = yield from play_pod(world, pod, end)
        return ended, ""

    def value(self, name: str, assignments: dict[str, str]) -> float:
        """Return a made-up objective in [0, 1), the same for the same trial; with early stopping the trial's lr."""
        if "earlyStopping" in self.spec:
            return float(assignments["lr"])
        text = repr(sorted(assignments.items()))
        return zlib.crc32(hashlib.sha256(text.encode()).digest()) / 2**32

    def stops(self, value: float) -> bool:
        """Return whether Katib's collector stops a trial that reports one value all the time."""
        if "earlyStopping" not in self.spec:
            return False
        rule = MedianStop.read(
            {each["name"]: each["value"] for each in self.spec["earlyStopping"]["algorithmSettings"]}
        )
        others = [trial.value for trial in self.trials.values() if trial.status is Status.SUCCEEDED and trial.value]
        goal = self.spec["objective"]["type"]
        bound = rule.bound(others, goal)
        if bound is not None and "mean-stops-none" in self.world.faults:
            bound = statistics.fmean(others)
        return bound is not None and rule.stops([value] * rule.start_step, bound, goal)

    def write_trial(self, name: str, assignments: dict[str, str], state: str, value: float | None = None) -> Object:
        """Create the Trial object, or give it its last status."""
        metrics = {} if value is None else {self.spec["objective"]["objectiveMetricName"]: f"{value:.6f}"}
        message = "" if state != "Failed" else "Job has reached the specified backoff limit"
        made = make_trial(self.name, name, assignments, state, metrics, message=message)
        found = self.world.find("trials", name)
        if found is None:
            made["metadata"]["labels"] |= self.experiment["metadata"].get("labels", {})
            made["metadata"]["ownerReferences"] = owner(self.experiment)
            return self.world.create("trials", made)
        self.world.set_status("trials", name, made["status"])
        return found

    def end(self, kind: str, message: str) -> None:
        """Give the Experiment its last condition, and take its suggestion away."""
        if self.suggestion is not None:
            self.world.delete("pods", self.suggestion["metadata"]["name"])
        condition = {"type": kind, "status": "True", "reason": REASONS[kind], "message": message}
        self.world.set_status("experiments", self.name, {"conditions": [condition]})
