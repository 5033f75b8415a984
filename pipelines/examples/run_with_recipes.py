"""Run the whole pipeline with recipes of your own: train a teacher, make two candidates, measure, choose, report.

    python pipelines/examples/run_with_recipes.py OUTPUT

The same as `kondense run --dataset digits --candidates none --recipe ...`; the report is OUTPUT/report.html.
"""

import subprocess
import sys

RECIPES = (
    "small=prune:l1:0.5:epochs=1 > quantize:static",
    "tiny=prune:magnitude:0.9:epochs=2 > quantize:weight_only:4",
)
SETTINGS = ("train.network=lenet300", "train.epochs=3", "evaluate.latency_seconds=0.1", "evaluate.robustness_images=0")


def main(output: str) -> int:
    """Run `kondense run` and return its exit code."""
    command = ["kondense", "run", "--dataset", "digits", "--candidates", "none", "--output", output]
    command += [word for recipe in RECIPES for word in ("--recipe", recipe)]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "runs/recipes"))
