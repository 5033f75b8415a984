"""The processes of one trial: the container of a Job, or the replicas of a PyTorchJob or TrainJob.

On a cluster the training operator gives every replica the variables of torchrun's rendezvous (PET_*) and of
``torch.distributed`` (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). On this machine the replicas are processes that meet
at a free port of the loopback interface.

Source: setPodEnv in pkg/controller.v1/pytorch/envvar.go of the training operator 1.9; the torch plugin of Trainer 2.0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kondense.errors import InputError

KINDS = ("Job", "PyTorchJob", "TrainJob")  # of trials that have processes on this machine
ROLES = ("Master", "Worker")  # of a PyTorchJob, in the order of ranks
HOST = "127.0.0.1"
MOST = 1_000  # replicas of a trial


@dataclass(frozen=True)
class Replica:
    """One process: its container (command, args, env, workingDir), and the variables of its rank."""

    container: Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)


def replicas(trial_spec: Mapping[str, Any], primary: str, port: int = 0) -> list[Replica]:
    """Return the processes of a trial, the one whose metrics count first; none if no container has the name.

    Args:
        trial_spec: of a kind in KINDS.
        primary: name of the primary container.
        port: where the replicas meet.
    """
    kind, spec = trial_spec.get("kind"), trial_spec.get("spec") or {}
    if kind == "PyTorchJob":
        found = [each for each in _of_pytorch_job(spec) if each.get("name") == primary]
        nodes, processes, rank = len(found), spec.get("nprocPerNode", 1), True
    elif kind == "TrainJob":
        trainer = spec.get("trainer") or {}
        nodes, processes, rank = _count(trainer.get("numNodes") or 1), trainer.get("numProcPerNode", 1), False
        found = [trainer] * nodes
    else:
        named = [each for each in containers(spec.get("template")) if each.get("name") == primary]
        return [Replica(each) for each in named[:1]]
    return [Replica(each, _variables(i, nodes, str(processes), port, rank=rank)) for i, each in enumerate(found)]


def containers(template: Any) -> list[Mapping[str, Any]]:
    """Return the containers of a pod template."""
    found: list[Mapping[str, Any]] = ((template or {}).get("spec") or {}).get("containers") or []
    return found


def names(trial_spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the containers of a trial."""
    spec = trial_spec.get("spec") or {}
    found = list(_of_pytorch_job(spec)) if trial_spec.get("kind") == "PyTorchJob" else containers(spec.get("template"))
    return sorted({str(each.get("name")) for each in found})


def limits(trial_spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object with activeDeadlineSeconds, backoffLimit and podFailurePolicy."""
    spec: Mapping[str, Any] = trial_spec.get("spec") or {}
    return spec if trial_spec.get("kind") == "Job" else {"backoffLimit": 0, **(spec.get("runPolicy") or {})}


def _of_pytorch_job(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    roles = spec.get("pytorchReplicaSpecs") or {}
    for role in ROLES:
        part = roles.get(role) or {}
        for _ in range(_count(part.get("replicas", 1)) if part else 0):
            yield from containers(part.get("template"))


def _count(value: Any) -> int:
    if (count := int(value)) > MOST:
        raise InputError(f"a trial must have at most {MOST:,} replicas, but has {count:.6g}.")
    return count


def _variables(node: int, nodes: int, processes: str, port: int, *, rank: bool) -> dict[str, str]:
    variables = {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": processes,
        "PET_NODE_RANK": str(node),
        "PET_MASTER_ADDR": HOST,
        "PET_MASTER_PORT": str(port),
    }
    if rank:
        plain = {"MASTER_ADDR": HOST, "MASTER_PORT": str(port), "WORLD_SIZE": str(nodes), "RANK": str(node)}
        variables |= plain | {"PYTHONUNBUFFERED": "1"}
    return variables
