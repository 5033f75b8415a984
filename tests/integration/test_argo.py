"""The Argo Workflow of the compress pipeline gives what the stages give."""

import json
from pathlib import Path

import pytest
import yaml
from kondense.artifacts.report import read_evaluation, read_report
from kondense.config import Config
from kondense.data_prep.stage import run as data_prep
from kondense.evaluate.stage import run as evaluate
from kondense.prune.stage import run as prune
from kondense.quantize.stage import run as quantize
from kondense.train.stage import run as train
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.compile import compile_compress
from kondense_pipelines.graphs.parameters import resolve
from kondense_pipelines.graphs.resources import Resources

from tests.support.local_argo import UID, LocalArgo
from tests.support.warm import Warm

pytestmark = pytest.mark.usefixtures("quick_yaml")

SECRETS = {"mlpipeline-minio-artifact": {"accesskey": "a", "secretkey": "b"}}
PLAIN = {
    "dataset": "digits",
    "seed": 1,
    "network": "lenet300",
    "train_epochs": 3,
    "dataset_image_size": 16,
    # With these the choice depends on no time, and the smallest candidate is it.
    "report_objective": "bytes",
    "report_max_drop": 0.9,
}
SETTINGS = (
    *("data_prep.limit=400", "prune.epochs=1", "prune.steps=1", "prune_weights.epochs=1", "prune_weights.steps=1"),
    *("distill.epochs=1", "evaluate.latency_seconds=0.02", "evaluate.further_latency_seconds=0.01"),
    "evaluate.robustness_images=20",
)
CANDIDATES = ("quantized", "pruned-distilled-quantized", "sparse-packed")  # of one step, three and two


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Config]:
    return resolve("quick", PLAIN, (*SETTINGS, f"publish.store_uri={tmp_path_factory.mktemp('published')}"))


@pytest.fixture(scope="module")
def ran(configs: dict[str, Config], tmp_path_factory: pytest.TempPathFactory, warm_process: Warm) -> LocalArgo:
    directory = tmp_path_factory.mktemp("argo")
    resources = Resources(checkpoints=str(directory / "checkpoints"))
    plan = read_plan(configs, ",".join(CANDIDATES))
    *_, path = compile_compress(configs, directory / "build", resources=resources, argo_bucket="models", plan=plan)
    assert path.name == "compress.argo.yaml"
    run = LocalArgo(yaml.safe_load(path.read_text()), directory, SECRETS, warm_process)
    run.run()
    return run


def test_the_chosen_candidate_is_the_one_that_the_stages_make(
    ran: LocalArgo, configs: dict[str, Config], tmp_path: Path
) -> None:
    artifacts = ran.bucket / "models" / "kondense/argo" / UID
    assert read_report(artifacts / "report/report")["chosen"] == "sparse-packed"
    chosen = artifacts / "report/chosen"
    dataset, teacher, sparse, packed, measured = (tmp_path / name for name in "dtspm")
    data_prep(configs["data_prep"], dataset_dir=dataset)
    train(configs["train"], dataset_dir=dataset, model_dir=teacher)
    prune(configs["prune_weights"], dataset_dir=dataset, model_dir=teacher, teacher_dir=teacher, pruned_dir=sparse)
    quantize(configs["pack_weights"], dataset_dir=dataset, model_dir=sparse, quantized_dir=packed)
    evaluate(configs["evaluate"], dataset_dir=dataset, model_dir=packed, candidate_dir=measured)
    for name in ("weights.safetensors", "weights.kz"):
        assert (chosen / name).read_bytes() == (measured / name).read_bytes(), name
    assert read_evaluation(chosen)["test_accuracy"] == read_evaluation(measured)["test_accuracy"]


def test_all_candidates_are_compared_and_the_chosen_one_is_published(
    ran: LocalArgo, configs: dict[str, Config]
) -> None:
    artifacts = ran.bucket / "models" / "kondense/argo" / UID
    names = [each["name"] for each in read_report(artifacts / "report/report")["candidates"]]
    assert names == [*CANDIDATES]
    assert (artifacts / "report/report/report.html").stat().st_size > 10_000
    assert list(Path(str(configs["publish"].to_dict()["store_uri"])).rglob("weights.kz"))
    assert "published=1.0" in ran.logs["publish"], json.dumps(ran.logs["publish"])
