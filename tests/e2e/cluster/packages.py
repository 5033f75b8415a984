"""The compiled pipelines, with settings so small that a run takes minutes on CPUs, and what the runs are given."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kondense.publish.versions import model_prefix
from kondense_pipelines.graphs.compile import EXPERIMENT

from tests.e2e.cluster.failure import CheckError
from tests.e2e.cluster.options import ROOT
from tests.e2e.cluster.session import BUCKET, Session

SECONDS = 900
EPOCHS = 12  # of the teacher
TITLE = "Kondense on a cluster"
# Not of one session alone: compiled packages may be taken again. What a run leaves there has the session's names.
PUBLISHED = "minio://kondense/e2e"
CHECKPOINTS = f"minio://{BUCKET}/kondense-e2e/checkpoints"
TRIALS = f"minio://{BUCKET}/kondense-e2e/search-trials"
SETTINGS = (
    *("train.batch_size=64", "prune.epochs=1", "prune.steps=1", "prune_weights.epochs=1", "prune_weights.steps=1"),
    *("distill.epochs=1", "evaluate.latency_seconds=0.05", "report.max_validation_drop=0.9"),
    *("publish.max_test_drop=0.9", f"train.epochs={EPOCHS}", f"report.title={TITLE}"),
    f"publish.store_uri={PUBLISHED}",
)
STORE_URI = re.compile(r"(?<=name: STORE_URI, value: \")[^\"]+(?=\")")
LONG = 1000  # epochs
# Folders of packages that differ: what they get of a cluster, and settings.
VARIANTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "": ((), ()),
    "absent": (("secret=absent-kondense-e2e", "retries=0"), ()),
    "long": ((), (f"train.epochs={LONG}",)),
}
CANDIDATES = "quantized,pruned,sparse-packed"


def package(session: Session, file: str) -> Path:
    """Return a compiled package, such as compress.yaml, compress.argo.yaml or absent/compress.yaml.

    Those below ``absent`` name a Secret that is not there, and no step of theirs is tried again; those below ``long``
    train the teacher for long enough to be cut off.
    """
    directory = session.options.packages or session.scratch / "packages"
    path = directory / file
    if not path.exists():
        variant = path.parent.name if path.parent != directory else ""
        resources, settings = VARIANTS[variant]
        _compile(session, path.parent, [f"checkpoints={CHECKPOINTS}", *resources], settings, argo=not variant)
    return path


def _compile(
    session: Session, directory: Path, resources: Sequence[str], further: Sequence[str], *, argo: bool
) -> None:
    experiment = session.scratch / "search.yaml"
    experiment.write_text(STORE_URI.sub(TRIALS, EXPERIMENT.read_text()))
    settings = [
        *SETTINGS,
        *([f"data_prep.image_size={session.options.image_size}"] if session.options.image_size else []),
        *further,
    ]
    command = [shutil.which("kondense", path=str(Path(sys.executable).parent)) or "kondense", "compile"]
    command.append("--no-check")  # the settings are those above
    command += [f"--output={directory}", f"--dataset={session.options.dataset}", f"--network={session.options.network}"]
    command += [f"--experiment={experiment}", f"--candidates={CANDIDATES}", *(["--argo"] if argo else [])]
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


def parameters(session: Session, name: str, **more: str) -> list[str]:
    """Return the parameters of a run, ``name=value``.

    Args:
        session: its seed keeps the run from the checkpoints of other sessions.
        name: under which the run publishes.
        more: further parameters.
    """
    published = published_name(session, name)
    session.undo(f"published model {published}", lambda: session.clear(f"{PUBLISHED}/{model_prefix(published)}"))
    given = {"publish_name": published, "seed": str(session.seed), **more}
    session.undo("the runs' checkpoints", lambda: session.clear(CHECKPOINTS))
    return [f"{key}={value}" for key, value in given.items()]


def published_name(session: Session, name: str) -> str:
    """Return under which name a run of this session publishes."""
    return f"e2e-{session.stamp}-{name}"
