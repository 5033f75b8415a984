"""The scenarios by name, in the order in which they run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.e2e.cluster import disturbing, installing, running, searching
from tests.e2e.cluster.session import Session


@dataclass(frozen=True)
class Scenario:
    """What is run, whether it needs the overlay applied, and what else the cluster must have."""

    run: Callable[[Session], None]
    needs: tuple[str, ...]

    @property
    def description(self) -> str:
        """One line: the function's docstring."""
        return str(self.run.__doc__).splitlines()[0]


PIPELINES, KATIB, ARGO, OVERLAY = "Kubeflow Pipelines", "Katib", "Argo Workflows", "the overlay"

SCENARIOS: Mapping[str, Scenario] = {
    "overlay": Scenario(installing.apply_overlay, (PIPELINES, KATIB)),
    "register-twice": Scenario(installing.register_twice, (OVERLAY, PIPELINES)),
    "secrets-absent": Scenario(running.secrets_absent, (OVERLAY, PIPELINES)),
    "compress": Scenario(running.compress, (OVERLAY, PIPELINES)),
    "refresh": Scenario(running.refresh, (OVERLAY, PIPELINES)),
    "search": Scenario(running.search, (OVERLAY, PIPELINES, KATIB)),
    "recurring": Scenario(running.recurring, (OVERLAY, PIPELINES)),
    "experiments": Scenario(searching.experiments, (OVERLAY, KATIB)),
    "failing-trials": Scenario(searching.failing_trials, (OVERLAY, KATIB)),
    "early-stopping": Scenario(searching.early_stopping, (OVERLAY, KATIB)),
    "suggestion-killed": Scenario(searching.suggestion_killed, (OVERLAY, KATIB)),
    "trial-evicted": Scenario(searching.trial_evicted, (OVERLAY, KATIB)),
    "step-evicted": Scenario(disturbing.step_evicted, (OVERLAY, PIPELINES, KATIB)),
    "terminated": Scenario(disturbing.terminated, (OVERLAY, PIPELINES, KATIB)),
    "argo": Scenario(running.argo, (OVERLAY, ARGO)),
    "uninstall": Scenario(installing.uninstall, (OVERLAY, KATIB)),
}
