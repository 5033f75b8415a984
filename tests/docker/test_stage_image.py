"""The stage image: a stage, a trial against the object store, and the whole compress pipeline as containers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kondense import cli
from kondense.store.open import open_store
from kondense_pipelines.local.store import local_store

from tests.contract.test_manifests import kustomize
from tests.docker.conftest import RESTRICTED, ROOT
from tests.docker.inspection import check_metadata
from tests.support.fake_kfp import FakePipelines, serve

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]

SCHEDULE = ROOT / "manifests" / "pipelines" / "schedule.yaml"
STAGES = sorted(path.parent.name for path in (ROOT / "components" / "kondense").glob("*/stage.py"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of an object store on this machine's loopback."""
    with local_store(tmp_path_factory.mktemp("store"), dict(os.environ)) as variables:
        yield variables


def run(engine: Any, image: str, *arguments: str, **options: Any) -> str:
    """Return the output of `python3 ARGUMENTS` in a container as the manifests run one."""
    output = engine.containers.run(
        image,
        command=["python3", *arguments],
        remove=True,
        stderr=True,
        **{**RESTRICTED, "network_mode": "none", **options},
    )
    return str(output.decode())


def test_metadata_and_size(engine: Any, base_image: str, stage_image: str) -> None:
    check_metadata(engine, stage_image, base_image)
    print(f"stage image: {engine.images.get(stage_image).attrs['Size'] / 1e9:.2f} GB")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_starts_without_a_network(engine: Any, stage_image: str, stage: str) -> None:
    code = f"import importlib; importlib.import_module('kondense.{stage}.stage')"
    run(engine, stage_image, "-c", code)


@pytest.mark.parametrize("stage", cli.STAGES)
def test_help_of_every_stage(engine: Any, stage_image: str, stage: str) -> None:
    assert stage in run(engine, stage_image, "-m", "kondense.cli", stage, "--help")


def test_kfp_and_what_registers_pipelines_are_there(engine: Any, stage_image: str) -> None:
    run(
        engine,
        stage_image,
        "-c",
        "import kfp.dsl.executor_main, kfp.kubernetes, kondense_pipelines.deploy.register, kubernetes, minio",
    )
    code = "import pathlib, kondense_pipelines.deploy.register as r; print(*r.compile_all(pathlib.Path('/tmp')))"
    image = "registry.test/stage-python:1"
    assert "compress.yaml" in run(engine, stage_image, "-c", code, environment={"KONDENSE_STAGE_IMAGE": image})


def job_arguments(module: str, **values: str) -> list[str]:
    """Return the arguments of a set-up Job of the overlay for profiles, with Kubernetes' variables put in."""
    jobs = [each for each in kustomize(ROOT / "manifests" / "overlays" / "multi-user") if each["kind"] == "Job"]
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in jobs]
    (found,) = [each for each in containers if each["command"][2] == module]
    arguments = " ".join(found["args"])
    for name, value in values.items():
        arguments = arguments.replace(f"$({name})", value)
    return arguments.split()


def test_the_registering_job_registers(engine: Any, stage_image: str, tmp_path: Path) -> None:
    fake = FakePipelines(token="of the account")
    (tmp_path / "token").write_text("of the account")
    mounts = {str(tmp_path): {"bind": "/var/run/token"}, str(SCHEDULE): {"bind": f"/etc/kondense/{SCHEDULE.name}"}}
    with serve(fake) as address:
        environment = {
            "KF_PIPELINES_ENDPOINT": address,
            "KF_PIPELINES_SA_TOKEN_PATH": "/var/run/token/token",
            "KONDENSE_NAMESPACE": "team",
            "KONDENSE_STAGE_IMAGE": "registry.test/stage-python:1",
        }
        arguments = job_arguments("kondense_pipelines.deploy.register", KONDENSE_NAMESPACE="team")
        options = {"network_mode": "host", "environment": environment, "volumes": mounts, "mem_limit": "1g"}
        tmp_path.chmod(0o755)
        output = run(engine, stage_image, "-m", "kondense_pipelines.deploy.register", *arguments, **options)
    assert output.count("uploaded") == 3
    assert {each["name"] for each in fake.objects["pipelines"]} == {"compress", "search", "refresh"}
    assert all("-0123456789ab-" in each["name"] for each in fake.objects["versions"])  # the image's revision
    images = [
        executor["container"]["image"]
        for each in fake.objects["versions"]
        for executor in each["pipeline_spec"]["deploymentSpec"]["executors"].values()
    ]
    assert set(images) == {"registry.test/stage-python:1"}
    assert len(fake.objects["recurringruns"]) == 1


def test_the_bucket_job_makes_buckets(engine: Any, stage_image: str, store: dict[str, str]) -> None:
    account = {"MINIO_ACCESS_KEY": "artifacts", "MINIO_SECRET_KEY": "made for this test"}
    root = {"MINIO_ROOT_USER": store["MINIO_ACCESS_KEY"], "MINIO_ROOT_PASSWORD": store["MINIO_SECRET_KEY"]}
    options = {"network_mode": "host", "environment": {**store, **root, **account}}
    output = run(engine, stage_image, "-m", "kondense_pipelines.deploy.buckets", "first-one", "second-one", **options)
    assert output.count(": created\n") == 2


def test_bad_input_is_one_line_and_exit_code_2(engine: Any, stage_image: str) -> None:
    arguments = ["python3", "-m", "kondense.cli", "train", "--epochs=0"]
    container = engine.containers.run(stage_image, command=arguments, detach=True, network_mode="none", **RESTRICTED)
    try:
        assert container.wait()["StatusCode"] == 2
        assert container.logs().decode().startswith("error: ")
    finally:
        container.remove(force=True)


def test_a_trial_reads_and_writes_the_object_store(
    engine: Any, stage_image: str, store: dict[str, str], digits16_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    open_store("minio://mlpipeline/datasets").upload_directory("digits", digits16_dir)
    options = {"network_mode": "host", "environment": store, "mem_limit": "4g"}
    arguments = ["--dataset-uri=minio://mlpipeline/datasets/digits", "--store-uri=minio://mlpipeline/trials"]
    arguments += ["--trial-name=exp-b0r0c0-abcdef", "--train.epochs=1", "--train.max_epochs=3"]
    output = run(engine, stage_image, "-m", "kondense.cli", "trial", *arguments, **options)
    assert "validation_accuracy=" in output
    assert open_store("minio://mlpipeline/trials").list("")


def test_the_compress_pipeline_runs_as_containers(stage_image: str, tmp_path: Path, store: dict[str, str]) -> None:
    result = kondense(tmp_path, stage_image, store)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert len(report["candidates"]) == 7
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_step_that_fails_fails_the_run(stage_image: str, tmp_path: Path, store: dict[str, str]) -> None:
    options = ["--dataset", "fashion_mnist", "--set", "data_prep.source=s3://mlpipeline/none"]
    result = kondense(tmp_path, stage_image, store, *options)
    assert result.returncode == 2  # bad input, as the step tells
    assert result.stderr.startswith("error: ") and "data prep" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "report.json").exists()


def kondense(
    tmp_path: Path, image: str, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    arguments = ["run", "--docker", "--dataset", "digits", "--network", "lenet300", "--output", str(tmp_path / "run")]
    for setting in ("train.epochs", "prune.epochs", "prune_weights.epochs", "distill.epochs"):
        arguments += ["--set", f"{setting}=1"]
    arguments += ["--set", "prune_weights.steps=1", "--set", "publish.max_test_drop=0.9"]
    variables = {**os.environ, **environment, "KONDENSE_STAGE_IMAGE": image, "KONDENSE_CACHE": str(tmp_path / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "kondense_pipelines.cli.app", *arguments, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=variables,
    )
