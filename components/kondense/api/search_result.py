"""What a search over a Python function returns: its trials, the best one and the front, also for a notebook."""

import dataclasses
import html
import math
from collections.abc import Mapping
from typing import Any

from kondense.errors import InputError
from kondense.search.history import Goal
from kondense.search.pick import read_pick

SHOWN = 10  # trials in a result's table
CHART = (360, 120)  # pixels
NESTED = ("config", "metrics")  # attributes of a trial that are mappings


@dataclasses.dataclass(frozen=True)
class Trial:
    """One evaluation of the objective.

    Attributes:
        name: encodes bracket, rung and configuration; promoted configurations keep their number.
        config: the objective's keyword arguments, without the resource.
        resource: the resource; None without one.
        value: the objective's value; None if it failed or was not a finite number.
        status: succeeded or failed.
        reason: of a missing value.
        seconds: wall time.
        metrics: what an objective of several goals returned, without what is not a finite number.
    """

    name: str
    config: Mapping[str, Any]
    resource: int | None
    value: float | None
    status: str
    reason: str
    seconds: float
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The trials of a search; shows itself as a table and a curve in a notebook.

    Attributes:
        trials: the finished trials, in order of ending.
        best: the best trial at the largest resource reached; None if no trial has a value. Of several goals the one
            of the front that is best in the first; if no trial keeps the constraints, the one that breaks them least.
        outcome: succeeded, failed or interrupted.
        reason: of the outcome.
        goal: minimize or maximize; of several goals the first.
        front: the trials at the largest resource that keep the constraints and that no other one dominates, the best
            in the first goal first; with one goal the best.
    """

    trials: tuple[Trial, ...]
    best: Trial | None
    outcome: str
    reason: str
    goal: Goal
    front: tuple[Trial, ...] = ()

    def pick(self, rule: str) -> Trial | None:
        """Return the trial of the front that a rule picks, such as `accuracy >= 0.9, min size`; None without one.

        If no trial of the front keeps the rule's bounds, it is the nearest.

        Raises:
            ValueError: the rule has another form, or names what the objective does not return.
        """
        if not self.front:
            return None
        values = [trial.metrics for trial in self.front]
        chosen = read_pick(rule, sorted(set().union(*values)))
        if chosen is not None and chosen.is_expected:
            raise InputError(f"pick must be a rule on metrics here, but got {rule!r}.")
        return self.front[chosen.best(values) if chosen else 0]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The trials as plain dictionaries, such as `pandas.DataFrame(result.rows)` takes."""
        return [
            {**trial.config, **{key: value for key, value in vars(trial).items() if key not in NESTED}, **trial.metrics}
            for trial in self.trials
        ]

    def incumbents(self) -> list[float]:
        """Return the best value so far after each trial at the largest resource; NaN before the first."""
        resource = self.best.resource if self.best else None
        best, curve = math.nan, []
        pick = max if self.goal == "maximize" else min
        for trial in self.trials:
            if trial.value is not None and trial.resource == resource:
                best = trial.value if math.isnan(best) else pick(best, trial.value)
            curve.append(best)
        return curve

    def __str__(self) -> str:
        """Return the outcome and the best configuration."""
        lines = [f"{self.outcome}: {self.reason}; {len(self.trials)} trials"]
        lines.append(f"best value {self.best.value:.6g}{_at(self.best)}" if self.best else "no trial has a value")
        lines += [f"  {name} = {value!r}" for name, value in (self.best.config if self.best else {}).items()]
        if len(self.front) > 1:
            lines.append(f"front of {len(self.front)}:")
            lines += ["  " + ", ".join(f"{k}={v:.6g}" for k, v in trial.metrics.items()) for trial in self.front]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        sign = -1.0 if self.goal == "maximize" else 1.0
        ranked = sorted(self.trials, key=lambda t: (-(t.resource or 0), t.value is None, sign * (t.value or 0.0)))
        names = list(ranked[0].config) if ranked else []
        rows = [["value", "resource", *names, "seconds", "status"]]
        for trial in ranked[:SHOWN]:
            value = "" if trial.value is None else f"{trial.value:.6g}"
            resource = "" if trial.resource is None else str(trial.resource)
            status = f"{trial.status}: {trial.reason}" if trial.reason else trial.status
            rows.append([value, resource, *(f"{trial.config[n]}" for n in names), f"{trial.seconds:.2f}", status])
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        heading = html.escape(f"{self.outcome}: {self.reason}")
        body = "".join(f"<tr>{row}</tr>" for row in cells[1:])
        return f"<p>{heading}</p>{self._curve()}<table><thead><tr>{cells[0]}</tr></thead><tbody>{body}</tbody></table>"

    def _curve(self) -> str:
        """Return the best value so far as an SVG."""
        curve = [(index, value) for index, value in enumerate(self.incumbents()) if not math.isnan(value)]
        if not curve:
            return ""
        width, height = CHART
        low, high = min(value for _, value in curve), max(value for _, value in curve)
        x = [8 + (width - 16) * index / max(len(self.trials) - 1, 1) for index, _ in curve]
        y = [height - 20 - (height - 40) * ((value - low) / (high - low) if high > low else 0.5) for _, value in curve]
        steps = f"M{x[0]:.1f} {y[0]:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(x[1:], y[1:], strict=True))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">'
            f'<text x="8" y="14" font-size="12">best value so far: {curve[-1][1]:.6g}</text>'
            f'<path d="{steps}" fill="none" stroke="#0b62a8" stroke-width="2"/></svg>'
        )


def _at(trial: Trial) -> str:
    return "" if trial.resource is None else f" at resource {trial.resource}"
