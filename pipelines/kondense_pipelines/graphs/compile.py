"""Compile the pipelines into the files that a cluster takes."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kondense.config import Config
from kondense.errors import InputError
from kondense.files import check_writable, write_file
from kondense.katib.yaml_text import quoted
from kondense.profiles import DEFAULT_PROFILE
from kondense.scratch import scratch_directory

from kondense_pipelines.graphs import compress, refresh, search
from kondense_pipelines.graphs.argo import workflow_text
from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.parameters import NETWORK_FIELDS, TRAIN_JOB, split
from kondense_pipelines.graphs.resources import Resources

VERSION_DIGITS = 10
EXPERIMENT = Path(__file__).parent / "search.yaml"  # manifests/experiments/bohb.yaml in the package
NAMES = (compress.NAME, search.NAME, refresh.NAME)


def compile_all(
    configs: Mapping[str, Config],
    output_dir: Path,
    *,
    only: Collection[str] = NAMES,
    experiment: Path = EXPERIMENT,
    resources: Resources | None = None,
    kubernetes: bool = False,
    namespace: str = "kubeflow",
    argo_bucket: str = "",
    plan: Plan | None = None,
    profile: str = DEFAULT_PROFILE,
    settings: Sequence[str] = (),
) -> list[Path]:
    """Compile the pipelines and return the files that were written.

    Args:
        configs: the Config of every step. Curated parameters become the pipelines' defaults, the rest is fixed.
        output_dir: directory of ``compress.yaml``, ``search.yaml`` and ``refresh.yaml``, which are written atomically.
        only: the names of those to compile.
        experiment: the Katib Experiment of the search.
        resources: resources of the steps on a cluster; by default without GPUs.
        kubernetes: write ``<name>.kubernetes.yaml`` too, the Pipeline and PipelineVersion objects for ``kubectl
            apply`` where KFP stores pipelines in Kubernetes. A version cannot be changed, so its name ends in a
            digest of what it runs.
        namespace: of those objects.
        argo_bucket: write ``compress.argo.yaml`` too, an Argo Workflow that keeps its artifacts in this bucket.
        plan: the candidates; None for the standard ones.
        profile: the run form's default; the profile of a run sets the values that the Configs took from it.
        settings: ``step.field=value`` texts that are in the Configs; no profile changes their fields.

    Raises:
        InputError: ``output_dir`` is a file, there is no such Experiment, it breaks rules of Katib's, or a Workflow
            cannot have a value.
    """
    check_writable(output_dir)
    if argo_bucket and (nodes := configs[TRAIN_JOB].to_dict()["nodes"]) != 1:
        raise InputError(f"{TRAIN_JOB}.nodes must be 1 in an Argo Workflow, but got {nodes}.")
    arguments, bound = split(configs, profile, settings)
    networks = [str(configs[step].to_dict()[field]) for step, field in NETWORK_FIELDS]
    cluster = (resources or Resources()).allowing(networks)
    make = {
        compress.NAME: lambda: compress.make_compress(arguments, bound, cluster, plan),
        search.NAME: lambda: search.make_search(search.read_template(experiment), arguments, bound, cluster, plan),
        refresh.NAME: lambda: refresh.make_refresh(arguments, bound, cluster, plan),
    }
    made = {name: make[name]() for name in NAMES if name in only}  # errors come before the first file
    written = []
    for name, pipeline in made.items():
        written += _compile(name, pipeline, output_dir, namespace if kubernetes else "")
        if argo_bucket and name == compress.NAME:  # the others have conditions or parameters that a step returns
            written.append(output_dir / f"{name}.argo.yaml")
            write_file(written[-1], _workflow(configs, cluster, plan, argo_bucket).encode())
    return written


def _workflow(configs: Mapping[str, Config], resources: Resources, plan: Plan | None, bucket: str) -> str:
    """Return compress as an Argo Workflow, from a flat graph with the values of the profile."""
    arguments, bound = split(configs)
    flat = compress.make_compress(arguments, bound, resources, plan, nested=False)
    with scratch_directory("compile") as scratch:
        package = scratch / f"{compress.NAME}.yaml"
        compiler.Compiler().compile(flat, str(package))
        return workflow_text(package, resources, bucket)


def compile_compress(configs: Mapping[str, Config], output_dir: Path, **options: Any) -> list[Path]:
    """Compile the compress pipeline alone; see ``compile_all``."""
    return compile_all(configs, output_dir, only=(compress.NAME,), **options)


def _compile(name: str, pipeline: Any, output_dir: Path, namespace: str) -> list[Path]:
    """Compile one pipeline; ``namespace`` is that of its Kubernetes objects, empty for none."""
    with scratch_directory("compile") as scratch:
        package = scratch / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(package))
        content = quoted(package.read_text(encoding="utf-8")).encode()
        written = [output_dir / package.name]
        write_file(written[0], content)
        if namespace:
            digest = hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]
            options = KubernetesManifestOptions(
                pipeline_name=name,
                pipeline_display_name=pipeline.pipeline_spec.pipeline_info.display_name,
                pipeline_version_name=f"{name}-{digest}",
                pipeline_version_display_name=f"{name} {digest}",
                namespace=namespace,
                include_pipeline_manifest=True,
            )
            manifest = scratch / f"{name}.kubernetes.yaml"
            compiler.Compiler().compile(
                pipeline,
                str(manifest),
                kubernetes_manifest_format=True,
                kubernetes_manifest_options=options,
            )
            written.append(output_dir / manifest.name)
            write_file(written[1], quoted(manifest.read_text(encoding="utf-8")).encode())
    return written


def task_names(package: Path) -> list[str]:
    """Return the display names of a compiled package's tasks, sorted; those under a condition included."""
    spec = next(yaml.safe_load_all(package.read_text()))
    dags = [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]
    tasks = [task for dag in dags for task in dag["tasks"].values()]
    conditions = [name for name, component in spec["components"].items() if "dag" in component]
    return sorted(task["taskInfo"]["name"] for task in tasks if task["componentRef"]["name"] not in conditions)
