"""Compile the pipelines into the files that a cluster takes."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from components.artifacts.files import write_file
from components.config import Config
from pipelines.compress import NAME, make_compress
from pipelines.parameters import split

VERSION_DIGITS = 10


def compile_compress(
    configs: Mapping[str, Config], output_dir: Path, *, kubernetes: bool = False, namespace: str = "kubeflow"
) -> list[Path]:
    """Compile the compress pipeline and return the files that were written.

    Args:
        configs: the Config of every step. Curated parameters become the pipeline's defaults, the rest is fixed.
        output_dir: gets ``compress.yaml`` for upload, whole or not at all.
        kubernetes: write ``compress.kubernetes.yaml`` too, the Pipeline and PipelineVersion objects for ``kubectl
            apply`` where KFP stores pipelines in Kubernetes. A version cannot be changed, so its name ends in a
            digest of what it runs.
        namespace: of those objects.
    """
    arguments, bound = split(configs)
    pipeline = make_compress(bound)
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / f"{NAME}.yaml"
        compiler.Compiler().compile(pipeline, str(package), pipeline_parameters=dict(arguments))
        content = package.read_bytes()
        written = [output_dir / package.name]
        write_file(written[0], content)
        if kubernetes:
            digest = hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]
            options = KubernetesManifestOptions(
                pipeline_name=NAME,
                pipeline_display_name="Compress a network",
                pipeline_version_name=f"{NAME}-{digest}",
                pipeline_version_display_name=f"{NAME} {digest}",
                namespace=namespace,
                include_pipeline_manifest=True,
            )
            manifest = Path(scratch) / f"{NAME}.kubernetes.yaml"
            compiler.Compiler().compile(
                pipeline,
                str(manifest),
                pipeline_parameters=dict(arguments),
                kubernetes_manifest_format=True,
                kubernetes_manifest_options=options,
            )
            written.append(output_dir / manifest.name)
            write_file(written[1], manifest.read_bytes())
    return written


def task_names(package: Path) -> list[str]:
    """Return the display names of a compiled package's tasks, sorted."""
    spec = next(yaml.safe_load_all(package.read_text()))
    return sorted(task["taskInfo"]["name"] for task in spec["root"]["dag"]["tasks"].values())
