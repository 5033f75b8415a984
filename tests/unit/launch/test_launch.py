"""The processes of a stage: how many, what a failure is told as, and a kill followed by a retry."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from kondense import launch
from kondense.artifacts.failed import is_trouble
from kondense.cli import main
from kondense.data.dataset import save_dataset
from kondense.errors import InputError, KondenseError, ShortfallError
from kondense.launch import ProcessLostError, count_processes, failure_of
from kondense.quantize.config import QuantizeConfig
from kondense.stages import STAGES
from kondense.train.config import TrainConfig
from kondense.training.trainer import NonFiniteLossError
from safetensors.torch import load_file

from tests.support.toy_training import toy_dataset


@pytest.fixture
def gpus(monkeypatch):
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_devices_are_all_gpus_of_the_machine(gpus):
    gpus(0)
    assert count_processes(TrainConfig()) == 1
    assert count_processes(TrainConfig(devices=2)) == 2
    gpus(4)
    assert count_processes(TrainConfig()) == 4
    assert count_processes(TrainConfig(devices=1)) == 1
    assert count_processes(TrainConfig(devices=3)) == 3
    assert count_processes(TrainConfig(device="cpu")) == 1
    assert count_processes(TrainConfig(compile=True)) == 1
    assert count_processes(TrainConfig(device="cpu", devices=8)) == 8


def test_what_does_not_train_runs_in_one_process(gpus):
    gpus(4)
    assert count_processes(TrainConfig(import_uri="model")) == 1
    assert count_processes(TrainConfig(network="torchvision:resnet18@DEFAULT")) == 1
    assert count_processes(TrainConfig(import_uri="model", fine_tune=True)) == 4
    assert count_processes(QuantizeConfig(method="static", devices=2)) == 1
    assert count_processes(QuantizeConfig(method="qat")) == 4
    assert count_processes(QuantizeConfig(method="weight_only", fine_tune=True)) == 4


def test_more_devices_than_gpus_or_images_are_refused(gpus):
    gpus(2)
    with pytest.raises(InputError, match=r"^devices must be at most 2, the GPUs of this machine, but got 3\.$"):
        count_processes(TrainConfig(devices=3))
    with pytest.raises(
        InputError, match=r"^compile must be false with several devices, but got true with devices 2\.$"
    ):
        TrainConfig(compile=True, devices=2)
    with pytest.raises(InputError, match=r"^batch_size must be at least the 2 devices, but got 1\.$"):
        count_processes(TrainConfig(batch_size=1))


def left(directory: Path, rank: int, kind: str, name: str, text: str) -> None:
    (directory / f"{rank}.json").write_text(json.dumps({"kind": kind, "type": name, "text": text}))


@pytest.mark.parametrize("error", [InputError, ShortfallError, NonFiniteLossError, OSError, MemoryError])
def test_an_error_of_a_process_is_raised_as_in_one(error, tmp_path):
    left(tmp_path, 0, launch.PEER, "builtins:RuntimeError", "Connection closed by peer")
    left(tmp_path, 1, launch.OWN, f"{error.__module__}:{error.__qualname__}", "a rule, but got a value.")
    found = failure_of(tmp_path, {0: 1, 1: 1}, 2)
    assert type(found) is error
    assert str(found) == "a rule, but got a value."


def test_a_bug_is_one_line_that_names_its_process(tmp_path):
    left(tmp_path, 1, launch.OWN, "builtins:ZeroDivisionError", "division by zero")
    found = failure_of(tmp_path, {0: -15, 1: 1}, 2)
    assert type(found) is KondenseError
    assert str(found) == "process 2 of 2 failed: ZeroDivisionError: division by zero"
    left(tmp_path, 1, launch.OWN, "gone.module:LostError", "text")
    assert str(failure_of(tmp_path, {1: 1}, 2)) == "text"


def test_a_killed_process_outweighs_those_that_lost_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KONDENSE_CHECKPOINTS", "somewhere")
    left(tmp_path, 0, launch.PEER, "builtins:RuntimeError", "Connection closed by peer")
    found = failure_of(tmp_path, {0: 1, 1: -signal.SIGKILL, 2: -signal.SIGTERM}, 3)
    assert isinstance(found, ProcessLostError)
    assert is_trouble(found)  # of the machine, so that a candidate's step is tried again
    assert str(found) == (
        "process 2 of 3 was ended by SIGKILL, as the kernel does when memory is short; all were stopped, and the same"
        " command goes on from the latest checkpoint."
    )
    monkeypatch.delenv("KONDENSE_CHECKPOINTS")
    assert str(failure_of(tmp_path, {1: 5}, 3)).endswith(
        "was ended with exit code 5; all were stopped, and the same command begins anew, since KONDENSE_CHECKPOINTS"
        " names no place for checkpoints."
    )


def test_a_process_that_was_asked_to_stop_is_no_failure(tmp_path):
    found = failure_of(tmp_path, {0: 143, 1: -signal.SIGTERM}, 2)
    assert isinstance(found, SystemExit)
    assert found.code == 143


def listening(pids) -> set[str]:
    """Return the addresses on which processes listen."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = row.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:  # TCP_LISTEN
                address = local.partition(":")[0]
                found.add(
                    ".".join(str(each) for each in reversed(bytes.fromhex(address))) if table == "tcp" else address
                )
    return found


def test_a_killed_process_stops_all_and_a_retry_resumes(tmp_path, monkeypatch, capfd):
    """A stage command in two processes, one of which is killed; then in one process, which goes on."""
    save_dataset(tmp_path / "data", toy_dataset())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    flags = [
        "train",
        "--dataset-dir",
        str(tmp_path / "data"),
        "--epochs",
        "40",
        "--batch-size",
        "64",
        "--device",
        "cpu",
    ]
    flags += ["--learning-rate", "0.01"]
    monkeypatch.delenv("KONDENSE_CHECKPOINTS", raising=False)
    assert main([*flags, "--model-dir", str(tmp_path / "whole")]) == 0
    monkeypatch.setenv("KONDENSE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    command = [sys.executable, "-m", "kondense.cli", *flags, "--model-dir", str(tmp_path / "model"), "--devices", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("epoch 3/"):
                workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                assert len(workers) == 2
                assert all("kondense.cli" in Path(f"/proc/{pid}/cmdline").read_text() for pid in workers)  # forks
                addresses = listening([str(process.pid), *workers])
                os.kill(int(workers[1]), signal.SIGKILL)
    assert process.returncode == 1
    assert addresses == {"127.0.0.1"}  # what they send each other is unpickled
    assert lines[0] == "training in 2 processes"
    assert lines[-1].startswith("error: process 2 of 2 was ended by SIGKILL, as the kernel does when memory is short;")
    assert not any("Traceback" in line or "Error" in line for line in lines)
    assert not (tmp_path / "model").exists()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    capfd.readouterr()
    assert main([*flags, "--model-dir", str(tmp_path / "model")]) == 0
    assert "resumed at epoch " in capfd.readouterr().out
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "model"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-3, atol=1e-3)


def test_programs_of_their_own_train_as_forks_do(tmp_path, monkeypatch, capfd):
    save_dataset(tmp_path / "data", toy_dataset())
    monkeypatch.setenv("KONDENSE_CHECKPOINTS", "")
    flags = ["train", "--dataset-dir", str(tmp_path / "data"), "--epochs", "1", "--device", "cpu", "--devices", "2"]
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()  # a fork would lack it
    try:
        assert not launch.can_fork(STAGES["train"])
        assert main([*flags, "--model-dir", str(tmp_path / "programs")]) == 0
    finally:
        ended.set()
        thread.join()
    command = [sys.executable, "-m", "kondense.cli", *flags, "--model-dir", str(tmp_path / "forks")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = [
        [re.sub(r" images_per_s=.*", "", line) for line in text.splitlines() if not line.startswith("took ")]
        for text in (told.stdout, capfd.readouterr().out)
    ]
    assert lines[0] == lines[1]
    assert not told.stderr
    programs, forks = (load_file(tmp_path / name / "weights.safetensors") for name in ("programs", "forks"))
    assert all(torch.equal(forks[name], tensor) for name, tensor in programs.items())
