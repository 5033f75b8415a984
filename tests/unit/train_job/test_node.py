"""Nodes of a TrainJob, as processes under the variables that a torch runtime sets."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kondense import launch
from kondense.artifacts.model import load_model
from kondense.data.dataset import save_dataset
from kondense.errors import InputError
from kondense.launch import Nodes, OthersLostError, failure_of
from kondense.stages import STAGES
from kondense.store.local import LocalStore
from kondense.train.config import TrainConfig
from kondense.train.stage import train
from kondense.train_node.config import TrainNodeConfig
from kondense.train_node.stage import run

from tests.support.toy_training import toy_dataset

ROOT = Path(__file__).parents[3]
TORCH = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "job-node-0-0.job", "PET_MASTER_PORT": "29500"}


def test_the_runtime_s_variables_name_the_nodes() -> None:
    assert Nodes.of(TORCH, "job") == Nodes(2, 1, "job-node-0-0.job:29500", "job")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"PET_NNODES": ""}, r"PET_NNODES must be set by the TrainJob's torch runtime, but got ''\."),
        ({"PET_MASTER_PORT": "x"}, r"PET_MASTER_PORT must be set by the TrainJob's torch runtime, but got 'x'\."),
        ({"PET_NODE_RANK": "2"}, r"PET_NODE_RANK must be below PET_NNODES \(2\), but got 2\."),
    ],
)
def test_a_runtime_that_is_not_torch_s_is_told(changes: dict[str, str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        Nodes.of(TORCH | changes, "job")


def test_a_node_s_failure_is_kept_for_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCH.items():
        monkeypatch.setenv(name, value)
    config = TrainNodeConfig(dataset_uri=str(tmp_path / "none"), store_uri=str(tmp_path / "store"), job="job")
    with pytest.raises(InputError):
        run(config)
    line = LocalStore(tmp_path / "store").read("failures/job.txt").decode()
    assert line.startswith(f"{tmp_path / 'none'} must be an artifact with a file dataset.json")


GLOO = (
    "[/src/gloo/pair.cc:545] Read error [127.0.0.1]:4237: Connection reset by peer. This is typically caused by a peer"
)


def test_processes_are_counted_over_all_nodes_and_the_node_that_failed_tells_why(tmp_path: Path) -> None:
    lost = {"kind": launch.PEER, "type": "builtins:RuntimeError", "text": GLOO}
    (tmp_path / "2.json").write_text(json.dumps(lost))
    found = failure_of(tmp_path, {2: 1, 3: -15}, 2, first=2, total=4)
    assert isinstance(found, OthersLostError)
    assert str(found).startswith(
        "process 3 of 4 lost the others (Read error [127.0.0.1]:4237: Connection reset by peer); all"
    )
    killed = failure_of(tmp_path, {2: 1, 3: -9}, 2, first=2, total=4)
    assert not isinstance(killed, OthersLostError)
    assert str(killed).startswith("process 4 of 4 was ended by SIGKILL")


def test_a_node_that_finds_no_others_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "RENDEZVOUS_S", 1)
    nodes = Nodes(2, 0, f"localhost:{free_port()}", "job")
    paths = {"dataset_dir": tmp_path, "model_dir": tmp_path / "model"}
    with pytest.raises(
        OthersLostError, match=r"^all 2 nodes must meet at localhost:\d+ within 1 s, but node 0 did not"
    ):
        launch.run(STAGES["train"], TrainConfig(device="cpu", devices=1), paths, nodes=nodes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_two_nodes_make_the_model_of_one_process(tmp_path: Path) -> None:
    """Two containers' commands on this machine; the weights are compared with training in this process."""
    dataset = toy_dataset(train=96)
    save_dataset(tmp_path / "data", dataset)
    config = TrainConfig(epochs=1, batch_size=32, width=0.25, devices=1, learning_rate=0.01)
    command = [sys.executable, "-m", "kondense.cli", "train_node", f"--dataset-uri={tmp_path / 'data'}"]
    command += [f"--store-uri={tmp_path / 'store'}", "--job=job", f"--train={json.dumps(config.to_dict())}"]
    local = {
        "PET_MASTER_ADDR": "localhost",
        "PET_MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    nodes = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **TORCH, **local, "PET_NODE_RANK": rank, "PYTHONPATH": str(ROOT / "components")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    outputs = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert "validation_accuracy=" in outputs[0]
    assert "validation_accuracy=" not in outputs[1]
    LocalStore(tmp_path / "store").download_directory("models/job", tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.lineage[-1]["details"]["devices"] == 2
    expected = train(None, dataset, config).model.module.state_dict()
    for name, tensor in model.module.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)
    assert LocalStore(tmp_path / "store").list("checkpoints/")
