"""The recurring run: compared with the wanted one, and replaced only if it differs."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kondense.errors import InputError
from kondense.katib.yaml_text import read_file

from kondense_pipelines.cluster.versions import Registered, experiment_id, list_all, named

CRON_FIELDS = 6


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The wanted recurring run.

    Attributes:
        name: its display name, by which it is identified.
        pipeline: the pipeline that runs, in the version that this image uploads.
        cron: six fields, seconds first.
        enabled: False: it exists, but is paused.
        max_concurrency: runs at a time, 1 to 10.
        parameters: of the pipeline; the others keep their defaults.
    """

    name: str
    pipeline: str
    cron: str
    enabled: bool = False
    max_concurrency: int = 1
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.cron.split()) != CRON_FIELDS:
            raise InputError(f"cron must have six fields, seconds first (0 0 3 * * *), but got {self.cron!r}.")
        if not 1 <= self.max_concurrency <= 10:
            raise InputError(f"max_concurrency must be in [1, 10], but got {self.max_concurrency}.")
        if not isinstance(self.enabled, bool):
            raise InputError(f"enabled must be true or false, but got {self.enabled!r}.")


def read_schedule(path: Path) -> Schedule:
    """Return the schedule of a file (manifests/pipelines/schedule.yaml).

    Raises:
        InputError: an unknown key, a missing one, or a value out of its range.
    """
    content, *_ = read_file(path) or [None]
    known = [field.name for field in dataclasses.fields(Schedule)]
    if (
        not isinstance(content, dict)
        or not set(content) <= set(known)
        or not {"name", "pipeline", "cron"} <= set(content)
    ):
        raise InputError(f"{path} must hold name, pipeline and cron, and may hold {', '.join(known[3:])}.")
    return Schedule(**content | {"parameters": content.get("parameters") or {}})


def schedule_run(
    client: Any,
    schedule: Schedule,
    source: Registered | Path,
    *,
    description: str = "",
    namespace: str | None = None,
    service_account: str | None = None,
) -> Iterator[str]:
    """Create the recurring run, or replace it if it differs, and yield lines of the actions.

    The new one is created before the old ones are deleted: if the process is killed in between, the next call sees both
    and deletes the old one.

    Args:
        client: a ``kfp.Client``.
        schedule: the wanted one.
        source: the version that runs, or the file of a package without one.
        description: of the recurring run; it names the package if there is no version.
        namespace: of a profile.
        service_account: of the runs; None for the installation's.
    """
    experiment = experiment_id(client, namespace)
    if isinstance(source, Registered):
        runs = {"pipeline_id": source.pipeline_id, "version_id": source.version_id}
    else:
        runs = {"pipeline_package_path": str(source)}
    arguments = {
        "experiment_id": experiment,
        "description": description,
        "cron_expression": schedule.cron,
        "max_concurrency": schedule.max_concurrency,
        "no_catchup": True,
        "params": dict(schedule.parameters),
        "enabled": schedule.enabled,
        "service_account": service_account,
        **runs,
    }
    listed = list_all(client.list_recurring_runs, "recurring_runs", experiment_id=experiment)
    present = named(listed, schedule.name)
    same = [each for each in present if _matches(each, arguments)]
    if same:
        yield f"recurring run {schedule.name}: it is there, {'on' if schedule.enabled else 'paused'}"
    else:
        client.create_recurring_run(job_name=schedule.name, **arguments)
        verb = "replaced" if present else "made"
        yield f"recurring run {schedule.name}: {verb}, {'on' if schedule.enabled else 'paused'}, {schedule.cron}"
    for other in present:
        if other not in same[:1]:
            client.delete_recurring_run(other.recurring_run_id)


def _matches(present: Any, wanted: Mapping[str, Any]) -> bool:
    cron = present.trigger.cron_schedule if present.trigger else None
    reference = present.pipeline_version_reference
    state = {
        "description": present.description or "",
        "cron_expression": cron.cron if cron else None,
        "max_concurrency": int(present.max_concurrency or 0),
        "no_catchup": bool(present.no_catchup),
        "params": dict((present.runtime_config.parameters if present.runtime_config else None) or {}),
        "pipeline_id": reference.pipeline_id if reference else None,
        "version_id": reference.pipeline_version_id if reference else None,
        "enabled": present.status == "ENABLED",
    }
    # The API fills in the account of runs that were made without one.
    if wanted["service_account"]:
        state["service_account"] = present.service_account
    return all(wanted.get(key) == value for key, value in state.items())
