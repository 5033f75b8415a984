"""The ``kondense`` command: what it refuses, and what it writes."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kondense.version import version_text
from kondense_pipelines.cli.app import app
from typer.testing import CliRunner


@pytest.fixture(autouse=True)
def keep_the_signal_handler() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "mnist"], "data_prep: dataset_name must be one of "),
        (["--network", "lenet6"], "network must be one of "),
        (["--profile", "slow"], "profile must be one of full, quick"),
        (["--set", "prune.sparseness=0.5"], "--set knows these fields of prune: "),
        (["--set", "shrink.sparsity=0.5"], "--set knows the steps data_prep, "),
        (["--set", "prune.sparsity=1.0"], "prune: sparsity must be in [0, 1), but got 1.0."),
        (["--set", "pack_weights.bits=9"], "pack_weights: bits must be in "),
        (["--set", "train.epochs=0"], "train: epochs must be in [1, 100000], but got 0."),
        (["--set", "publish.max_test_drop=-0.1"], "publish: max_test_drop must be in [0, 1), but got -0.1."),
    ],
)
@pytest.mark.parametrize("command", ["run", "compile"])
def test_bad_input_is_one_line_before_any_work(
    command: str, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [command, *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--datset", "digits"], "No such option: --datset (Possible options: --candidates, --dataset, --set)"),
        (["run", "digits"], "Got unexpected extra argument(s) (digits)"),
        (["run", "--seed", "abc"], "Invalid value for '--seed': .*integer.*, but got 'abc'"),
        (["search"], "Missing argument 'file'"),
        (["models", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["runn"], "No such command 'runn'. Did you mean 'run'?"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_names_its_help(arguments: list[str], line: str) -> None:
    result = CliRunner().invoke(app, arguments, prog_name="kondense")
    given = next((number for number, text in enumerate(arguments) if text not in ("run", "search", "models")), 1)
    command = " ".join(["kondense", *arguments[:given]])
    assert result.exit_code == 2
    expected = line if ".*" in line else re.escape(line)
    assert re.fullmatch(rf"error: {expected}; see {command} --help\.\n", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--output", "file"], "{}/file must be a directory, or not exist yet, but is a file."),
        (["search", "absent.yaml"], "the Experiment must be a YAML file, but absent.yaml does not exist."),
        (["search", "."], "the Experiment must be a YAML file, but . is a directory."),
        (
            ["compile", "--no-check", "--output", "file/x"],
            "file/x must be a directory, or not exist yet, but file is a",
        ),
    ],
)
def test_a_path_of_the_wrong_kind_is_bad_input(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith(f"error: {message.format(tmp_path)}")


def test_a_run_on_one_machine_has_neither_a_search_nor_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for setting, what in (
        ("katib_search.ui=http://host", "no search step"),
        ("train_job.nodes=2", "one node; train.devices sets its processes"),
    ):
        result = CliRunner().invoke(app, ["run", "--set", setting])
        line = f"error: --set {setting} is for `kondense compile`: a run on this machine has {what}.\n"
        assert (result.exit_code, result.stderr) == (2, line)


def test_compile_writes_the_package_with_the_parameters_as_defaults(tmp_path: Path) -> None:
    arguments = [
        "compile",
        "--no-check",
        "--output",
        str(tmp_path),
        "--dataset",
        "digits",
        "--seed",
        "4",
        "--kubernetes",
    ]
    result = CliRunner().invoke(app, [*arguments, "--set", "train.epochs=3"])
    assert result.exit_code == 0, result.stderr
    package, manifest, *others = map(Path, result.stdout.splitlines())
    assert package == tmp_path / "compress.yaml" and manifest.is_file()
    assert [path.name for path in others[::2]] == ["search.yaml", "refresh.yaml"]
    spec = next(yaml.safe_load_all(package.read_text()))
    defaults = spec["root"]["inputDefinitions"]["parameters"]
    assert (defaults["dataset"]["defaultValue"], defaults["seed"]["defaultValue"]) == ("digits", 4)
    assert defaults["train_epochs"]["defaultValue"] == 3


def test_search_refuses_a_file_that_is_no_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.yaml").write_text("kind: Nothing\n")
    result = CliRunner().invoke(app, ["search", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    first, *rules = result.stderr.splitlines()
    assert first.startswith("error: ") and first.endswith(f"breaks {len(rules)} rule(s) of a Katib Experiment:")
    assert rules and all(line.startswith("  - ") for line in rules)
    assert not (tmp_path / "runs").exists()


def test_models_of_an_empty_store(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["models", "list", "--store", str(tmp_path / "store")])
    assert result.exit_code == 0, result.stderr
    assert "has no published models" in result.stdout
    missing = CliRunner().invoke(app, ["models", "show", "lenet5", "--store", str(tmp_path / "store")])
    assert missing.exit_code == 2
    assert missing.stderr.startswith("error: model 'lenet5' is not published")


@pytest.mark.parametrize("command", [["run", "--output", "out"], ["models", "list"]])
def test_an_object_store_that_cannot_be_reached_is_one_line_before_any_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"ENDPOINT": "127.0.0.1:9", "ACCESS_KEY": "a", "SECRET_KEY": "b", "SECURE": "false"}.items():
        monkeypatch.setenv(f"MINIO_{name}", value)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: http://127.0.0.1:9 cannot be reached")
    assert len(result.stderr.splitlines()) == 1
    assert "data prep" not in result.stdout and not (tmp_path / "out" / "report.json").exists()


def test_the_version_is_that_of_the_package_and_the_source() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{version_text()}\n")
    assert CliRunner().invoke(app, []).exit_code == 2  # the help, as before
