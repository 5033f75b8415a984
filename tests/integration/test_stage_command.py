"""``python -m kondense.cli`` as a container starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kondense.cli import main
from kondense.data.dataset import load_dataset
from kondense.stages import STAGES

COMMAND = (sys.executable, "-m", "kondense.cli")


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    texts = [str(argument) for argument in arguments]
    return subprocess.run(
        [*COMMAND, *texts], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_a_stage_writes_its_artifact_and_prints_its_metrics(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    result = run("data_prep", "--dataset-name", "digits", "--dataset-dir", target, "--seed", 3)
    assert result.returncode == 0, result.stderr
    assert load_dataset(target).seed == 3
    assert "train_images=1318.0" in result.stdout.splitlines()


def test_help_lists_stages_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert {line.split()[0] for line in told.splitlines() if line.startswith("  ")} == set(STAGES)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert "--dataset-dir" in text and "--learning-rate" in text and "[0, 100]" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage:"),
        (["cook"], "error: stage must be one of champion, data_prep, "),
        (["train"], "error: the following arguments are required: --dataset-dir, --model-dir"),
        (["train", "--dataset-dir", "d", "--model-dir", "m", "--epochs", "0"], "error: epochs must be in [1, 100000]"),
        (
            ["train", "--dataset-dir", "d", "--model-dir", "m", "--epochs", "x"],
            "error: epochs must be int, but got 'x'",
        ),
        (
            ["train", "--dataset-dir", "d", "--model-dir", "m", "--speed", "3"],
            "error: unrecognized arguments: --speed 3",
        ),
        (
            ["train", "--dataset-dir", "d", "--model-dir", "m", "--learning_rat=0.1"],
            "error: unrecognized arguments: --learning_rat=0.1 (did you mean --learning-rate?)",
        ),
        (["train", "--dataset-dir", "d", "--model-dir", "m", "--compile", "maybe"], "error: compile must be one of"),
        (["data_prep", "--dataset-dir", "d", "--dataset-name", "mnist"], "error: dataset_name must be one of "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    assert code == 2
    if arguments:
        assert captured.err.startswith(message)
        assert len(captured.err.splitlines()) == 1


def test_an_artifact_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = run("train", "--dataset-dir", tmp_path / "none", "--model-dir", tmp_path / "model")
    assert result.returncode == 2
    assert result.stderr == f"error: --dataset-dir must be a directory, but {tmp_path / 'none'} does not exist.\n"
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--dataset-dir", "file", "--model-dir", "m"],
            "--dataset-dir must be a directory, but file is a file.",
        ),
        (
            ["data_prep", "--dataset-name", "digits", "--dataset-dir", "file"],
            "file must be a directory, or not exist yet, but is a file.",
        ),
        (["trial", "--train.epohcs", "3"], "unrecognized arguments: --train.epohcs 3 (did you mean --train.epochs?)"),
    ],
)
def test_paths_and_flags_are_checked_before_work(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    assert (code, capsys.readouterr().err) == (2, f"error: {message}\n")


def test_sigterm_leaves_with_143_and_the_same_command_ends_with_the_same_model(
    digits16_dir: Path, tmp_path: Path
) -> None:
    arguments = ["--dataset-dir", digits16_dir, "--network", "lenet300", "--epochs", 15, "--batch-size", 32]
    threads = {"OMP_NUM_THREADS": "1"}
    environment = {"KONDENSE_CHECKPOINTS": str(tmp_path / "checkpoints"), "PYTHONUNBUFFERED": "1", **threads}
    command = [*COMMAND, "train", "--model-dir", tmp_path / "model", *arguments]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stdout
        next(line for line in process.stdout if line.startswith("epoch 2/"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert not (tmp_path / "model").exists()
    assert run("train", "--model-dir", tmp_path / "model", *arguments, **environment).returncode == 0
    assert run("train", "--model-dir", tmp_path / "whole", *arguments, **threads).returncode == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("model", "whole")]
    assert weights[0] == weights[1]
