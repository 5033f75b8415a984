"""A whole run on images in a bucket, streamed and on two devices, within a memory limit; killed twice, and undisturbed.

Both runs have a cache of their own and read one store: the S3 gateway that Kondense embeds, outside of the limit, as a
store elsewhere is. A kill is SIGKILL to every process of the run at once; then the same command is given again.
--directory keeps what is finished, so that one way can be measured after the other (--ways).
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kondense.store.bucket import ObjectStore
from kondense.store.connection import connection_from_environment
from kondense_pipelines.local.store import local_store

from benchmarks.scale.limit import Limit, limited
from benchmarks.scale.photos import make_photographs

WAYS = ("undisturbed", "killed")
SETTINGS = {
    "data_prep.storage": "shards",
    "train.devices": "2",
    "train.epochs": "2",
    "prune.epochs": "1",
    "distill.epochs": "1",
    "prune_weights.epochs": "1",
    "pack_weights.epochs": "1",
    "evaluate.further_latency_seconds": "0",  # latencies of batches of 64, 224 px, take most of an evaluation
    "evaluate.robustness_images": "0",
}
BATCH = 16
# A kill when the step's log has this line, and some seconds later; the second is of a candidate's step.
KILLS = (("train-teacher", re.compile(r"^epoch 1/", re.MULTILINE)), ("distill", re.compile(r"\A.", re.DOTALL)))
LATER_S, POLL_S, LONGEST_S = 4.0, 0.1, 3600.0


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Print what each way took, and whether their candidates have equal weights."""
    images = make_photographs(directory, arguments.images)
    figures: dict[str, Any] = {}
    for way in arguments.ways.split(","):
        kept = directory / f"{way}.json"
        if not kept.exists():
            with local_store(directory / "store", environment={}) as variables:
                _upload(images, variables)
                figures[way] = _measured(
                    directory / way, way, variables, int(arguments.limit_gib * 2**30), choices(arguments)
                )
            kept.write_text(json.dumps(figures[way], indent=1))
        figures[way] = json.loads(kept.read_text())
    print("| run | limit | seconds | peak held, MiB | killed by us | by the kernel |\n|---|---|---|---|---|---|")
    for way, one in figures.items():
        print(
            f"| {way} | {one['limit']} | {one['seconds']:.0f} | {one['peak_bytes'] / 2**20:,.0f} | {one['kills']} |"
            f" {one['oom_kills']} |"
        )
    if len(figures) == len(WAYS):
        first, second = (figures[way]["files"] for way in WAYS)
        differing = [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
        print(f"{len(first)} files of weights; differing: {', '.join(differing) or 'none'}")
    return figures


def _upload(images: Path, variables: Mapping[str, str]) -> None:
    store = ObjectStore(
        "s3://bucket/images", bucket="bucket", prefix="images", connection=connection_from_environment(variables)
    )
    present = set(store.list(""))
    for path in sorted(images.rglob("*.jpg")):
        if (key := path.relative_to(images).as_posix()) not in present:
            store.upload_file(key, path)


def choices(arguments: argparse.Namespace) -> list[str]:
    """Return the flags of a run that the arguments choose."""
    flags = ["--network", arguments.network, "--set", f"data_prep.image_size={arguments.size}"]
    flags += ["--set", f"data_prep.resize={arguments.size * 8 // 7}"]
    return [*flags, "--candidates", arguments.candidates] if arguments.candidates else flags


def _measured(
    place: Path, way: str, variables: Mapping[str, str], limit_bytes: int, chosen: list[str]
) -> dict[str, Any]:
    (place / "tmp").mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **variables, "KONDENSE_CACHE": str(place / "cache"), "TMPDIR": str(place / "tmp")}
    command = [sys.executable, "-m", "kondense_pipelines.cli.app", "run", "--dataset", "folder"]
    command += ["--source", "s3://bucket/images", "--output", str(place / "out"), *chosen]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    for step in ("train", "prune", "distill", "prune_weights", "pack_weights"):
        command += ["--set", f"{step}.batch_size={BATCH}"]
    began, kills = time.monotonic(), 0
    with limited(limit_bytes) as limit:
        for step, line in KILLS if way == "killed" else ():
            log = place / "out" / "logs" / f"{step}.log"
            kills += _run(command, environment, limit, place, due=_seen(log, line))
        _run(command, environment, limit, place)
        oom_kills = limit.kills()
    weights = sorted((place / "out").rglob("weights.*"))
    return {
        "limit": f"{limit.kind}, {limit_bytes / 2**30:g} GiB",
        "seconds": time.monotonic() - began,
        "peak_bytes": limit.peak,
        "kills": kills,
        "oom_kills": oom_kills,
        "files": {
            str(path.relative_to(place / "out")): hashlib.sha256(path.read_bytes()).hexdigest() for path in weights
        },
    }


def _seen(log: Path, line: re.Pattern[str]) -> Callable[[], bool]:
    """Return a function that tells whether a step's log has had a line for a while."""
    since: list[float] = []

    def due() -> bool:
        if not since and log.exists() and line.search(log.read_text()):
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > LATER_S

    return due


def _run(
    command: list[str],
    environment: Mapping[str, str],
    limit: Limit,
    place: Path,
    due: Callable[[], bool] = lambda: False,
) -> int:
    """Run a command to its end, or until it is due to be killed; return whether it was.

    Raises:
        subprocess.CalledProcessError: it failed.
        TimeoutError: it did not end.
    """
    began = time.monotonic()
    with (place / "output.log").open("ab") as output:
        child = subprocess.Popen(
            limit.command(command), env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
        try:
            while child.poll() is None:
                limit.look(child.pid)
                if due():
                    print(f"killed {limit.kill(child.pid)} processes", flush=True)
                    return 1
                if time.monotonic() - began > LONGEST_S:
                    raise TimeoutError(f"the run must end within {LONGEST_S:.0f} s, but did not")
                time.sleep(POLL_S)
        finally:
            limit.kill(child.pid)
            child.wait()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return 0
