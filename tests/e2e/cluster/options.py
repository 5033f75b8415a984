"""The options of the harness."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("cluster", "kind", "seaweedfs")
STAGE, SUGGESTION = "kondense/stage-python", "kondense/suggestion-python"


@dataclass(frozen=True)
class Options:
    """What is run, and where.

    Attributes:
        namespace: of Kubeflow Pipelines, Katib and the overlay.
        overlay: which of manifests/overlays.
        stage_image: runs the steps, trials and set-up Jobs; the manifests' by default.
        suggestion_image: runs the suggestion services; the manifests' by default.
        storage_class: of the object store's volume; empty for the cluster's default.
        pretend_gpus: give the nodes GPUs that are none; otherwise Experiments ask for none.
        kfp_endpoint: the address of Kubeflow Pipelines; empty for a port-forward of our own.
        s3_endpoint: host:port of the object store; empty for a port-forward of our own.
        artifact_root: where Kubeflow Pipelines keeps artifacts.
        inputs: keep or skip: whether the Job kondense-inputs of the overlay runs. What the scenarios
            need is uploaded from here in any case.
        dataset: of the runs; image_size: in pixels, 0 for its own; network: of the runs.
        only: names of scenarios; empty for all.
        skip: names of scenarios that are left out.
        keep: leave everything behind that was made.
        uninstall: let the scenario `uninstall` take away an overlay that stood there before.
        packages: a directory for the compiled pipelines; those that are there are taken.
        setup_timeout_s: for the set-up Jobs.
        run_timeout_s: for a run of a pipeline or an Experiment.
        poll_s: between two looks.
    """

    namespace: str = "kubeflow"
    overlay: str = "cluster"
    stage_image: str = ""
    suggestion_image: str = ""
    storage_class: str = ""
    pretend_gpus: bool = False
    kfp_endpoint: str = ""
    s3_endpoint: str = ""
    artifact_root: str = "minio://mlpipeline/v2/artifacts"
    inputs: str = "skip"
    dataset: str = "digits"
    image_size: int = 16
    network: str = "lenet300"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    keep: bool = False
    uninstall: bool = False
    packages: Path | None = None
    setup_timeout_s: float = 1200.0
    run_timeout_s: float = 2400.0
    poll_s: float = 2.0


def parse_options(arguments: Sequence[str], scenarios: Sequence[str]) -> tuple[Options, bool]:
    """Return the options, and whether the scenarios are only to be listed."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.cluster", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    parser.add_argument("--only", metavar="NAME,...", default="", help="run these scenarios")
    parser.add_argument("--skip", metavar="NAME,...", default="", help="leave these out")
    parser.add_argument("--namespace", default="kubeflow", help="of Kubeflow Pipelines, Katib and the overlay")
    parser.add_argument("--overlay", choices=OVERLAYS, default="cluster")
    parser.add_argument("--stage-image", default="", help="by default what manifests/images names")
    parser.add_argument("--suggestion-image", default="", help="by default what manifests/images names")
    parser.add_argument("--storage-class", default="", help="of the object store's volume")
    parser.add_argument("--pretend-gpus", action="store_true", help="patch GPUs into the nodes' status, as `make kind`")
    parser.add_argument("--kfp-endpoint", default="", metavar="URL", help="instead of a port-forward to ml-pipeline")
    parser.add_argument("--s3-endpoint", default="", metavar="HOST:PORT", help="instead of a port-forward to minio")
    parser.add_argument("--artifact-root", default=Options.artifact_root, metavar="URI", help="of the pipelines' runs")
    parser.add_argument("--inputs", choices=("keep", "skip"), default="skip", help="the overlay's Job kondense-inputs")
    parser.add_argument("--dataset", default="digits", help="digits are in the image; others need a way to get them")
    parser.add_argument("--image-size", type=int, default=16, metavar="PIXELS")
    parser.add_argument("--network", default="lenet300")
    parser.add_argument("--keep", action="store_true", help="leave everything behind that was made")
    parser.add_argument("--uninstall", action="store_true", help="uninstall an overlay that stood there before, too")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="keep compiled pipelines here and take them again")
    parser.add_argument("--setup-timeout", dest="setup_timeout_s", type=float, default=1200.0, metavar="SECONDS")
    parser.add_argument("--run-timeout", dest="run_timeout_s", type=float, default=2400.0, metavar="SECONDS")
    parser.add_argument("--poll", dest="poll_s", type=float, default=2.0, metavar="SECONDS")
    given = vars(parser.parse_args(arguments))
    listing = given.pop("list")
    for name in ("only", "skip"):
        given[name] = tuple(filter(None, given[name].split(",")))
        if unknown := [each for each in given[name] if each not in scenarios]:
            parser.error(f"--{name} knows {', '.join(scenarios)}, but got {unknown[0]!r}.")
    return Options(**given), listing


def manifest_image(name: str) -> str:
    """Return the image that manifests/images gives in the place of ``name``."""
    content = yaml.safe_load((MANIFESTS / "images" / "kustomization.yaml").read_text())
    (found,) = [each for each in content["images"] if each["name"] == name]
    place = found.get("newName", name)
    return f"{place}@{found['digest']}" if found.get("digest") else f"{place}:{found['newTag']}"


def split_image(image: str) -> dict[str, str]:
    """Return an image as kustomize takes it: newName with newTag or digest."""
    if "@" in image:
        name, _, digest = image.partition("@")
        return {"newName": name, "digest": digest}
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        raise ValueError(f"an image must have a tag or a digest, but got {image!r}.")
    return {"newName": name, "newTag": tag}
