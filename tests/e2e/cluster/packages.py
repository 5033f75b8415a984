"""The compiled pipelines, with settings so small that a run takes minutes on CPUs, and what the runs are given."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.cluster.failure import CheckError
from tests.e2e.cluster.options import ROOT
from tests.e2e.cluster.session import PUBLISHED, Session

SECONDS = 900
EPOCHS = 12  # of the teacher: enough that its pod can be deleted between two checkpoints
TITLE = "Kondense on a cluster"
SETTINGS = (
    *("train.batch_size=64", "prune.epochs=1", "prune.steps=1", "sparsify.epochs=1", "sparsify.steps=1"),
    *("distill.epochs=1", "evaluate.latency_seconds=0.05", "report.max_accuracy_drop=0.9"),
    *("publish.max_accuracy_drop=0.9", f"train.epochs={EPOCHS}", f"report.title={TITLE}"),
)
CANDIDATES = "quantized,pruned,sparse-packed"


def package(session: Session, file: str) -> Path:
    """Return a compiled package, such as compress.yaml, compress.argo.yaml or absent/compress.yaml.

    Those below ``absent`` name a Secret that is not there, and no step of theirs is tried again.
    """
    directory = session.options.packages or session.scratch / "packages"
    path = directory / file
    if not path.exists():
        absent = path.parent.name == "absent"
        resources = ["secret=absent-kondense-e2e", "retries=0"] if absent else []
        _compile(session, path.parent, resources, argo=not absent)
    return path


def _compile(session: Session, directory: Path, resources: list[str], *, argo: bool) -> None:
    settings = [
        *SETTINGS,
        *([f"data_prep.image_size={session.options.image_size}"] if session.options.image_size else []),
    ]
    command = [shutil.which("kondense", path=str(Path(sys.executable).parent)) or "kondense", "compile"]
    command += [f"--output={directory}", f"--dataset={session.options.dataset}", f"--network={session.options.network}"]
    command += [f"--candidates={CANDIDATES}", *(["--argo"] if argo else [])]
    command += [f"--set={each}" for each in settings] + [f"--resource={each}" for each in resources]
    environment = os.environ | {
        "KONDENSE_STAGE_IMAGE": session.stage_image,
        # A step that an earlier session's run has cached would leave nothing to look at.
        "KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT": "true",
    }
    session.say(f"compiling the pipelines for {session.stage_image}")
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    if result.returncode:
        raise CheckError(f"the pipelines do not compile: {' '.join(result.stderr.split())[-800:]}", " ".join(command))


def publish_uri(session: Session) -> str:
    """Return where this session's runs publish."""
    return f"minio://{PUBLISHED}/e2e-{session.stamp}"


def parameters(session: Session, **more: str) -> list[str]:
    """Return the parameters of a run, ``name=value``: it publishes where no other session does."""
    given = {"publish_store_uri": publish_uri(session), "device": "cpu", **more}
    return [f"{name}={value}" for name, value in given.items()]
