"""Where a local trial finds what the template addresses on the cluster."""

import json
from pathlib import Path

import pytest
from kondense.katib.spec import parse
from kondense_pipelines.local_search.addresses import AddressError, local_addresses

from tests.support.experiment_example import container, experiment

CLUSTER = {
    "DATASET_URI": "minio://bucket/datasets/digits",
    "STORE_URI": "minio://bucket/trials",
    "TEACHER_URI": "minio://bucket/teacher",
    "MINIO_ENDPOINT": "minio.kubeflow:9000",
    "OMP_NUM_THREADS": "4",
}


def addresses(tmp_path, environment, **stated):
    document = experiment()
    container(document)["env"] = [{"name": k, "value": v} for k, v in {**CLUSTER, **stated}.items()]
    return local_addresses(parse(document), tmp_path / "out", tmp_path / "cache", environment)


def test_this_machines_values_win():
    local = {"DATASET_URI": "/data", "STORE_URI": "/store", "TEACHER_URI": "/teacher", "OMP_NUM_THREADS": "1"}
    del (wanted := dict(local))["OMP_NUM_THREADS"]
    assert addresses(Path("/nowhere"), local) == wanted


def test_a_known_endpoint_keeps_the_bucket(tmp_path):
    local = {"MINIO_ENDPOINT": "127.0.0.1:9000", "DATASET_URI": "/data"}
    assert addresses(tmp_path, local) == {**local, "TEACHER_URI": ""}


def test_without_addresses_there_is_nothing_to_replace(tmp_path):
    assert local_addresses(parse(experiment()), tmp_path, tmp_path, {"DATASET_URI": "/data"}) == {}


def test_an_unknown_data_set_keeps_its_address(tmp_path):
    found = addresses(tmp_path, {}, DATASET_URI="minio://bucket/datasets/mine")
    assert found == {"STORE_URI": str(tmp_path / "out" / "store"), "TEACHER_URI": ""}


def test_the_data_set_is_prepared_once(tmp_path):
    found = addresses(tmp_path, {})
    directory = tmp_path / "cache" / "datasets" / "digits"
    assert found["DATASET_URI"] == str(directory)
    assert json.loads((directory / "dataset.json").read_text())
    written = (directory / "dataset.json").stat().st_mtime_ns
    addresses(tmp_path, {})
    assert (directory / "dataset.json").stat().st_mtime_ns == written


def test_data_that_cannot_be_prepared_is_a_clear_error(tmp_path):
    # A folder of images needs a source, which no address gives.
    with pytest.raises(AddressError, match="set DATASET_URI to a prepared one. error: source must be the folder"):
        addresses(tmp_path, {}, DATASET_URI="minio://bucket/datasets/folder")
