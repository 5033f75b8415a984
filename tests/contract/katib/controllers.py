"""A model of Katib's experiment, suggestion and trial controllers, to drive a suggestion service.

Written from what Katib 0.19 does: ReconcileTrials, createTrials, deleteTrials and ReconcileSuggestions
(experiment_controller.go), UpdateExperimentStatusCondition (status_util.go), SyncAssignments and ConvertTrials
(suggestionclient.go). Time is counted in steps; in each, all three controllers reconcile once and trials advance.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc
from kondense.katib.api import messages, services

DEADLINE_S = 60.0  # of both calls, as in Katib's client
CONDITIONS = messages.TrialStatus.TrialConditionType.Value
KINDS = {
    "double": messages.DOUBLE,
    "int": messages.INT,
    "discrete": messages.DISCRETE,
    "categorical": messages.CATEGORICAL,
}
DISTRIBUTIONS = {
    "uniform": messages.UNIFORM,
    "logUniform": messages.LOG_UNIFORM,
    "normal": messages.NORMAL,
    "logNormal": messages.LOG_NORMAL,
}


@dataclass(frozen=True)
class ExperimentSpec:
    """The part of an Experiment that the controllers act on."""

    name: str
    algorithm: str
    parameters: tuple[Mapping[str, object], ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    maximize: bool = False
    parallel: int = 3
    max_trials: int | None = None
    max_failed: int | None = None
    additional: Mapping[str, Callable[[Mapping[str, str]], str]] = field(default_factory=dict)  # metric -> its report


@dataclass(frozen=True)
class Assignment:
    name: str
    assignments: Mapping[str, str]


@dataclass
class Trial:
    """A Trial object; `fate` is what will become of it at step `ends`."""

    name: str
    assignments: Mapping[str, str]
    created: int
    ends: int
    fate: str
    condition: str = "CREATED"
    value: str | None = None

    @property
    def active(self) -> bool:
        return self.condition in ("CREATED", "RUNNING")


class Katib:
    """The three controllers and the objects they keep.

    Attributes:
        trials: the Trial objects there are now.
        issued: every assignment ever stored in the Suggestion's status.
        errors: what reconciling met; a controller would retry each for ever.
        condition: of the Experiment: Running, Succeeded or Failed.
        replies: number of trials asked for and the reply, of every call.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        channel: grpc.Channel,
        *,
        objective: Callable[[Mapping[str, str]], float],
        fates: Mapping[str, float] | None = None,
        duration: tuple[int, int] = (1, 8),
        seed: int = 0,
    ) -> None:
        self.spec = spec
        self.parallel = spec.parallel
        self.connect(channel)
        self.objective = objective
        self.fates = dict(fates or {})
        self.duration = duration
        self.rng = random.Random(seed)
        self.step = 0
        self.trials: dict[str, Trial] = {}
        self.foreign: list[Trial] = []
        self.requests = 0
        self.suggestions: list[Assignment] = []
        self.algorithm_settings: dict[str, str] = {}
        self.issued: list[Assignment] = []
        self.errors: list[str] = []
        self.condition = "Running"
        self.validated = False
        self.replies: list[tuple[int, object]] = []
        self.lose_next_update = False
        self.fail_next_creations = 0

    def connect(self, channel: grpc.Channel) -> None:
        self.stub = services.SuggestionStub(channel)

    def run(self, steps: int = 10_000, each: Callable[["Katib"], None] | None = None) -> "Katib":
        """Reconcile until the Experiment has ended or met an error that would be retried for ever."""
        for _ in range(steps):
            if self.condition != "Running" or self.errors:
                break
            if each is not None:
                each(self)
            self.reconcile_experiment()
            self.reconcile_suggestion()
            self.advance_trials()
        return self

    # The experiment controller.

    def reconcile_experiment(self) -> None:
        self.update_condition()
        if self.condition != "Running":
            return
        active = sum(trial.active for trial in self.trials.values())
        # METRICSUNAVAILABLE is missing here, in the controller too: it makes Katib start one or two more.
        completed = self._count("SUCCEEDED", "FAILED", "KILLED", "EARLYSTOPPED")
        if active > self.parallel:
            self.delete_trials(active - self.parallel)
        elif active < self.parallel:
            required = self.parallel
            if self.spec.max_trials is not None:
                required = min(self.spec.max_trials - completed, self.parallel)
            if required - active > 0:
                self.create_trials(required - active)

    def update_condition(self) -> None:
        failed = self._count("FAILED", "METRICSUNAVAILABLE")
        completed = self._count("SUCCEEDED", "KILLED", "EARLYSTOPPED") + failed
        if self.spec.max_failed is not None and failed != 0 and failed >= self.spec.max_failed:
            self.condition = "Failed"
        elif self.spec.max_trials is not None and completed >= self.spec.max_trials:
            self.condition = "Succeeded"

    def create_trials(self, add: int) -> None:
        current = len(self.trials)
        unobserved = sum(t.condition == "EARLYSTOPPED" and t.value is None for t in self.trials.values())
        waiting = []
        if len(self.suggestions) > current:
            waiting = [entry for entry in self.suggestions if entry.name not in self.trials]
        self.requests = current + add - unobserved
        for entry in waiting:
            if self.fail_next_creations > 0:
                self.fail_next_creations -= 1
                continue
            self._create(entry)

    def delete_trials(self, count: int) -> None:
        newest = sorted(self.trials.values(), key=lambda trial: trial.created, reverse=True)[:count]
        for trial in newest:
            del self.trials[trial.name]
        gone = {trial.name for trial in newest}
        self.suggestions = [entry for entry in self.suggestions if entry.name not in gone]
        self.requests = len(self.suggestions)

    def _create(self, entry: Assignment) -> None:
        names = {parameter["name"] for parameter in self.spec.parameters}
        if set(entry.assignments) != names:
            self.errors.append(f"Fail to get RunSpec: {sorted(entry.assignments)} against {sorted(names)}")
            return
        fate = self.rng.choices(["ok", *self.fates], [1 - sum(self.fates.values()), *self.fates.values()])[0]
        ends = self.step + self.rng.randint(*self.duration)
        self.trials[entry.name] = Trial(entry.name, entry.assignments, self.step, ends, fate)

    # The suggestion controller.

    def reconcile_suggestion(self) -> None:
        if not self.validated and not self._validate():
            return
        wanted = self.requests - len(self.suggestions)
        if wanted <= 0:
            return
        request = messages.GetSuggestionsRequest(
            experiment=self.experiment(),
            trials=[self._trial(trial) for trial in [*self.trials.values(), *self.foreign] if self._reported(trial)],
            current_request_number=wanted,
            total_request_number=self.requests,
        )
        try:
            reply = self.stub.GetSuggestions(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:  # the Deployment brings a dead service back
                self.errors.append(f"GetSuggestions: {error.code().name} {error.details()}")
            return
        self.replies.append((wanted, reply))
        if len(reply.parameter_assignments) != wanted:
            self.errors.append(
                f"The response contains unexpected trials: want {wanted} got {len(reply.parameter_assignments)}"
            )
            return
        if self.lose_next_update:
            self.lose_next_update = False
            return
        self._store(reply)

    def _validate(self) -> bool:
        try:
            self.stub.ValidateAlgorithmSettings(
                messages.ValidateAlgorithmSettingsRequest(experiment=self.experiment()), timeout=DEADLINE_S
            )
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN):
                self.condition = "Failed"
                self.errors.append(f"ValidateAlgorithmSettings: {error.details()}")
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE):
                return False
        self.validated = True
        return True

    def _store(self, reply) -> None:
        for entry in reply.parameter_assignments:
            name = entry.trial_name or f"{self.spec.name}-{self.rng.randrange(36**8):08x}"
            assignment = Assignment(name, {a.name: a.value for a in entry.assignments})
            if any(character not in "abcdefghijklmnopqrstuvwxyz0123456789-" for character in name) or len(name) > 63:
                self.errors.append(f"Trial create error: {name!r} is no DNS name")
            self.suggestions.append(assignment)
            self.issued.append(assignment)
        for setting in reply.algorithm.algorithm_settings:
            self.algorithm_settings[setting.name] = setting.value

    # The trial controller.

    def advance_trials(self) -> None:
        self.step += 1
        for trial in self.trials.values():
            if trial.condition == "EARLYSTOPPED" and trial.value is None:
                trial.value = repr(self.objective(trial.assignments))  # its sidecar reports a step later
            elif trial.active and trial.ends <= self.step:
                self._end(trial)
            elif trial.active:
                trial.condition = "RUNNING"

    def _end(self, trial: Trial) -> None:
        if trial.fate in ("ok", "nan"):
            trial.condition = "SUCCEEDED"
            trial.value = repr(self.objective(trial.assignments)) if trial.fate == "ok" else ""
        else:
            trial.condition = {
                "failed": "FAILED",
                "killed": "KILLED",
                "unavailable": "METRICSUNAVAILABLE",
                "early-stopped": "EARLYSTOPPED",
            }[trial.fate]

    # Conversion to messages.

    def experiment(self):
        experiment = messages.Experiment(name=self.spec.name)
        spec = experiment.spec
        for parameter in self.spec.parameters:
            space = parameter["feasibleSpace"]
            spec.parameter_specs.parameters.add(
                name=parameter["name"],
                parameter_type=KINDS[parameter["parameterType"]],
                feasible_space=messages.FeasibleSpace(
                    min=space.get("min", ""),
                    max=space.get("max", ""),
                    step=space.get("step", ""),
                    list=space.get("list", []),
                    distribution=DISTRIBUTIONS[space.get("distribution", "uniform")],
                ),
            )
        spec.objective.type = messages.MAXIMIZE if self.spec.maximize else messages.MINIMIZE
        spec.objective.objective_metric_name = "loss"
        spec.objective.additional_metric_names.extend(self.spec.additional)
        spec.algorithm.algorithm_name = self.spec.algorithm
        for name, value in {**self.spec.settings, **self.algorithm_settings}.items():
            spec.algorithm.algorithm_settings.add(name=name, value=value)
        spec.parallel_trial_count = self.parallel
        spec.max_trial_count = self.spec.max_trials or 0
        return experiment

    @staticmethod
    def _reported(trial: Trial) -> bool:
        return not (
            trial.condition == "METRICSUNAVAILABLE" or (trial.condition == "EARLYSTOPPED" and trial.value is None)
        )

    def _trial(self, trial: Trial):
        message = messages.Trial(name=trial.name)
        for name, value in trial.assignments.items():
            message.spec.parameter_assignments.assignments.add(name=name, value=value)
        message.status.condition = CONDITIONS(trial.condition)
        if trial.value is not None:
            message.status.observation.metrics.add(name="loss", value=trial.value)
            for name, measure in self.spec.additional.items():
                message.status.observation.metrics.add(name=name, value=measure(trial.assignments))
        return message

    def _count(self, *conditions: str) -> int:
        return sum(trial.condition in conditions for trial in self.trials.values())
