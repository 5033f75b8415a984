"""What `make run` costs: time, memory, the second run, and the share that is not stage compute.

    python -m benchmarks.pipeline [--profile quick] [--dataset fashion_mnist] [--output FILE]

Three runs with empty caches of their own: `kondense run` as a user starts it, the same again (everything
is reused), and the same stages called one after the other in one process, which is what their compute
costs without pipeline, object store and processes. The difference between the first and the last is the
orchestration. Memory is the proportional set size of the command and all its processes, sampled.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kondense_pipelines.local.warm import PATIENT

SAMPLE_S = 0.5


def descendants(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from descendants(int(child))


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size of a process: pages shared by n processes count 1/n."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        return 0
    return 0


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run a command and return wall seconds and peak memory in bytes; fail when it fails."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    peak, ended = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(SAMPLE_S):
            peak = max(peak, sum(proportional_bytes(pid) for pid in descendants(process.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    code = process.wait()
    ended.set()
    sampler.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return time.monotonic() - started, peak


def compute(profile: str, dataset: str, directory: Path) -> float:
    """Return the seconds that the stages of one run take in this process, one after the other."""
    from kondense.data_prep import stage as data_prep
    from kondense.distill import stage as distill
    from kondense.evaluate import stage as evaluate
    from kondense.evaluate.config import EvaluateConfig
    from kondense.prune import stage as prune
    from kondense.quantize import stage as quantize
    from kondense.report import stage as report
    from kondense.train import stage as train
    from kondense_pipelines.graphs.parameters import resolve

    configs: dict[str, Any] = resolve(profile, {"dataset": dataset})
    data, teacher = directory / "dataset", directory / "teacher"

    def model(step: str, source: Path, name: str) -> Path:
        path = directory / name
        quantize.run(configs[step], dataset_dir=data, model_dir=source, quantized_dir=path)
        return path

    started = time.monotonic()
    data_prep.run(configs["data_prep"], dataset_dir=data)
    train.run(configs["train"], dataset_dir=data, model_dir=teacher)
    pruned, taught, sparse, student = (directory / name for name in ("pruned", "taught", "sparse", "distilled"))
    prune.run(configs["prune"], dataset_dir=data, model_dir=teacher, pruned_dir=pruned)
    prune.run(configs["prune_weights"], dataset_dir=data, model_dir=teacher, pruned_dir=sparse, teacher_dir=teacher)
    distill.run(configs["distill"], dataset_dir=data, teacher_dir=teacher, student_dir=student)
    distill.run(configs["distill"], dataset_dir=data, teacher_dir=teacher, model_dir=pruned, student_dir=taught)
    models = {
        "teacher": teacher,
        "quantized": model("quantize", teacher, "quantized"),
        "pruned": pruned,
        "pruned-quantized": model("quantize", pruned, "pruned-quantized"),
        "distilled": student,
        "distilled-quantized": model("quantize", student, "distilled-quantized"),
        "pruned-distilled-quantized": model("quantize", taught, "taught-quantized"),
        "sparse-packed": model("pack_weights", sparse, "packed"),
    }
    candidates = []
    for name, path in models.items():
        candidates.append(directory / "candidates" / name)
        config = EvaluateConfig(**configs["evaluate"].to_dict() | {"name": name})
        reference = None if name == "teacher" else candidates[0]
        evaluate.run(config, dataset_dir=data, model_dir=path, candidate_dir=candidates[-1], teacher_dir=reference)
    report.run(
        configs["report"],
        candidate_dirs=candidates,
        report_dir=directory / "report",
        chosen_dir=directory / "chosen",
    )
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--compute-only", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.compute_only:
        print(compute(arguments.profile, arguments.dataset, arguments.compute_only))
        return
    flags = ["--profile", arguments.profile, "--dataset", arguments.dataset]
    with tempfile.TemporaryDirectory(prefix="kondense-benchmark-") as scratch:
        environment = PATIENT | os.environ | {"KONDENSE_CACHE": f"{scratch}/cache"}
        run = [sys.executable, "-m", "kondense_pipelines.cli.app", "run", *flags, "--output"]
        first_s, peak = timed([*run, f"{scratch}/first"], environment)
        second_s, _ = timed([*run, f"{scratch}/second"], environment)
        direct = [sys.executable, "-m", "benchmarks.pipeline", *flags, "--compute-only", f"{scratch}/direct"]
        output = subprocess.run(direct, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        compute_s = float(output.stdout.split()[-1])
    figures = {
        "first_run_s": first_s,
        "second_run_s": second_s,
        "stage_compute_s": compute_s,
        "orchestration_share": 1 - compute_s / first_s,
        "peak_memory_bytes": peak,
    }
    print(f"{arguments.profile} profile on {arguments.dataset}, {os.cpu_count()} cores")
    print(f"first run           {first_s:7.1f} s, peak memory {peak / 2**30:.2f} GiB")
    print(f"second run          {second_s:7.1f} s")
    print(f"stage compute alone {compute_s:7.1f} s: orchestration is {100 * figures['orchestration_share']:.1f} %")
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
