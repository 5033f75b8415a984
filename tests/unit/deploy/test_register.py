"""The Job that uploads pipelines and makes the recurring run, with kfp's own client against an API over HTTP."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kondense.errors import InputError
from kondense.version import __version__
from kondense_pipelines.cluster.package import Package, read_package
from kondense_pipelines.cluster.recurring import read_schedule
from kondense_pipelines.deploy import job, register

from tests.support.fake_kfp import FakePipelines, serve

pytestmark = pytest.mark.usefixtures("quick_yaml")

SCHEDULE = """
name: nightly
pipeline: compress
cron: "0 0 3 * * *"
enabled: false
parameters: {seed: 3, dataset: digits}
"""


@pytest.fixture
def fake() -> FakePipelines:
    return FakePipelines()


@pytest.fixture
def address(fake: FakePipelines) -> Iterator[str]:
    with serve(fake) as served:
        yield served


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return register.compile_all(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def read(packages: list[Path]) -> dict[str, Package]:
    return {package.stem: read_package(package) for package in packages}


@pytest.fixture(autouse=True)
def _compile_once(monkeypatch: pytest.MonkeyPatch, read: dict[str, Package]) -> None:
    monkeypatch.setattr(register, "_packages", lambda *arguments: read)


def run(address: str, tmp_path: Path, text: str | None = SCHEDULE, **environment: str) -> list[str]:
    path = tmp_path / "schedule.yaml"
    path.write_text(text or "")
    variables = {"KF_PIPELINES_ENDPOINT": address, "KONDENSE_REVISION": "0123456789abcdef", **environment}
    return list(register.run(path if text else None, variables))


def recurring(fake: FakePipelines) -> dict[str, Any]:
    (found,) = fake.objects["recurringruns"]
    return found


def test_pipelines_are_uploaded_in_a_version_named_by_the_source(
    fake: FakePipelines, address: str, tmp_path: Path, packages: list[Path]
) -> None:
    run(address, tmp_path, None)
    assert {each["name"] for each in fake.objects["pipelines"]} == {package.stem for package in packages}
    names = {each["name"] for each in fake.objects["versions"]}
    assert all(re.fullmatch(r"[a-z]+-0123456789ab-[0-9a-f]{10}", name) for name in names)
    assert {each["display_name"] for each in fake.objects["versions"]} == {f"{__version__} (0123456)"}
    described = {each["name"]: each["description"] for each in fake.objects["pipelines"]}
    versions = {each["name"].partition("-")[0]: each["description"] for each in fake.objects["versions"]}
    for package in packages:
        info = next(yaml.safe_load_all(package.read_text()))["pipelineInfo"]
        # A pipeline's text stays as it is first made, so what one package makes is told by its version.
        assert described[package.stem] == info["description"].splitlines()[0]
        assert versions[package.stem].startswith(info["description"])
        assert "source revision 0123456789abcdef, package " in versions[package.stem]
    assert not fake.objects["recurringruns"]
    uploaded = {
        each["pipeline_spec"]["pipelineInfo"]["name"]: each["pipeline_spec"] for each in fake.objects["versions"]
    }
    for package in packages:
        assert uploaded[package.stem] == next(yaml.safe_load_all(package.read_text()))


def test_a_second_run_changes_nothing(fake: FakePipelines, address: str, tmp_path: Path) -> None:
    run(address, tmp_path)
    changes = len(fake.changes)
    assert all("it is there" in line for line in run(address, tmp_path))
    assert len(fake.changes) == changes


def test_another_revision_is_a_further_version_and_the_run_moves_to_it(
    fake: FakePipelines, address: str, tmp_path: Path, packages: list[Path]
) -> None:
    run(address, tmp_path)
    run(address, tmp_path, KONDENSE_REVISION="fedcba9876543210")
    assert len(fake.objects["pipelines"]) == len(packages)
    assert len(fake.objects["versions"]) == 2 * len(packages)
    newest = [each for each in fake.objects["versions"] if "fedcba987654" in each["name"]]
    running = recurring(fake)["pipeline_version_reference"]["pipeline_version_id"]
    assert running in {each["pipeline_version_id"] for each in newest}


def test_what_was_there_stays(fake: FakePipelines, address: str, tmp_path: Path) -> None:
    for number in range(5):  # more than a page
        fake.create("pipelines", {"name": f"theirs-{number}", "display_name": f"theirs {number}"}, "pipeline_id")
    run(address, tmp_path)
    assert len([each for each in fake.objects["pipelines"] if each["name"].startswith("theirs")]) == 5
    assert all("it is there" in line for line in run(address, tmp_path))  # ours is on the third page


def test_the_recurring_run_is_what_the_schedule_says(fake: FakePipelines, address: str, tmp_path: Path) -> None:
    run(address, tmp_path)
    made = recurring(fake)
    assert made["display_name"] == "nightly"
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert made["status"] == "DISABLED"
    assert made["no_catchup"] is True
    assert made["max_concurrency"] == 1
    assert made["runtime_config"]["parameters"] == {"seed": 3, "dataset": "digits"}
    assert made["description"] == "source revision 0123456; dataset=digits, seed=3"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"0 0 3 * * *"', '"0 30 4 * * *"'),
        ("enabled: false", "enabled: true"),
        ("seed: 3", "seed: 4"),
        ("enabled: false", "enabled: false\nmax_concurrency: 2"),
    ],
)
def test_a_changed_schedule_replaces_it(fake: FakePipelines, address: str, tmp_path: Path, old: str, new: str) -> None:
    run(address, tmp_path)
    before = recurring(fake)["recurring_run_id"]
    assert any("replaced" in line for line in run(address, tmp_path, SCHEDULE.replace(old, new)))
    assert recurring(fake)["recurring_run_id"] != before
    assert fake.changes[-2:] == ["create recurringruns", "delete recurringruns"]  # there is always one


def test_what_a_killed_run_left_is_cleared_up(fake: FakePipelines, address: str, tmp_path: Path) -> None:
    run(address, tmp_path)
    left = {**recurring(fake), "recurring_run_id": "left"}
    left["trigger"] = {"cron_schedule": {"cron": "0 0 1 * * *"}}
    fake.objects["recurringruns"].insert(0, left)
    run(address, tmp_path)
    assert recurring(fake)["recurring_run_id"] != "left"


def test_a_platform_with_profiles_gets_token_namespace_and_account(tmp_path: Path) -> None:
    fake = FakePipelines(token="of the account")
    (tmp_path / "token").write_text("of the account")
    with serve(fake) as address:
        environment = {
            "KF_PIPELINES_SA_TOKEN_PATH": str(tmp_path / "token"),
            "KONDENSE_NAMESPACE": "team",
            "KONDENSE_SERVICE_ACCOUNT": "default-editor",
        }
        run(address, tmp_path, **environment)
        assert all("it is there" in line for line in run(address, tmp_path, **environment))
    assert {each["namespace"] for each in fake.objects["pipelines"]} == {"team"}
    assert recurring(fake)["service_account"] == "default-editor"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"0 0 3 * * *"', '"0 3 * * *"', "cron must have six fields, seconds first"),
        ("enabled: false", "max_concurrency: 11", "max_concurrency must be in [1, 10], but got 11"),
        ("enabled: false", "enabled: perhaps", "enabled must be true or false, but got 'perhaps'"),
        ("enabled: false", "when: never", "must hold name, pipeline and cron"),
        ("pipeline: compress", "pipeline: compres", "pipeline must be one of compress, search, refresh"),
        ("seed: 3", "seeds: 3", "the name of a parameter must be one of dataset, "),
        ("seed: 3", "seed: -1", "seed must be in [0, 2147483647], but got -1"),
        ("dataset: digits", "dataset: folder", "source must be the folder of images if dataset_name is folder"),
        ("dataset: digits", "quantize_method: l3", "quantize_method must be one of "),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_done(
    *, fake: FakePipelines, address: str, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run(address, tmp_path, SCHEDULE.replace(old, new))
    assert fake.changes == []


@pytest.mark.parametrize(("content", "rule"), [(b"[" * 200_000, "100 levels"), (b"\xff", "UTF-8"), (b"a: [", "YAML")])
def test_a_schedule_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "schedule.yaml").write_bytes(content)
    with pytest.raises(InputError, match=rule) as error:
        read_schedule(tmp_path / "schedule.yaml")
    assert "\n" not in str(error.value)


def test_an_api_that_refuses_or_is_away_is_told_in_one_line(
    fake: FakePipelines, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.refuse = "quota exceeded"
    assert job.run(lambda: run(address, tmp_path)) == 1
    assert capsys.readouterr().err == "error: Kubeflow Pipelines refused: quota exceeded\n"
    assert job.run(lambda: run("http://127.0.0.1:1", tmp_path)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Kubeflow Pipelines (2.14 or newer) must answer at http://127.0.0.1:1, but:")
    assert error.count("\n") == 1
    assert job.run(lambda: run("", tmp_path)) == 2
    assert "KF_PIPELINES_ENDPOINT must be" in capsys.readouterr().err


def unknown_before(whole: dict[str, Any]) -> list[str]:
    return Package(Path("uploaded"), whole["pipeline_spec"], whole["platform_spec"]).unknown_before()


def test_an_old_server_gets_packages_that_it_takes(
    fake: FakePipelines, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    fake.health = {"tag_name": "2.15.0"}
    run(address, tmp_path)
    assert all(unknown_before(each) == [] for each in fake.packages.values())
    fake.health = {"tag_name": "2.17.0"}
    assert sum("uploaded" in line for line in run(address, tmp_path)) == 3
    assert sum(bool(unknown_before(each)) for each in fake.packages.values()) == 3
    path = tmp_path / "schedule.yaml"
    environment = {"KF_PIPELINES_ENDPOINT": address}
    fake.health = {"tag_name": "2.15.0"}
    with pytest.raises(ValueError, match=r"compress.yaml must have no choices of parameters.*kfp_version=2\.15"):
        list(register.run(path, environment, resources=["kfp_version=2.17"]))


def test_a_server_that_is_too_old(fake: FakePipelines, address: str, tmp_path: Path) -> None:
    fake.health = {"tag_name": "2.13.0"}
    with pytest.raises(OSError, match=r"must be 2\.14 or newer, but .* is 2\.13\.0"):
        run(address, tmp_path)
    assert fake.changes == []


def test_settings_and_resources_reach_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    made = register.compile_all(tmp_path, ["publish.store_uri=minio://mlpipeline/team"], ["gpus=2"])
    (publish,) = [each for each in read_package(tmp_path / "compress.yaml").tasks({}) if each.function == "publish"]
    assert publish.known["store_uri"].value == "minio://mlpipeline/team"
    assert {path.stem for path in made} == {"compress", "search", "refresh"}
    assert "nvidia.com/gpu" in (tmp_path / "compress.yaml").read_text()
    with pytest.raises(ValueError, match="--resource"):
        register.compile_all(tmp_path, [], ["gpu=2"])


def test_the_job_loads_no_torch() -> None:
    code = "import sys, kondense_pipelines.deploy.register as r, pathlib, tempfile\n"
    code += "r.compile_all(pathlib.Path(tempfile.mkdtemp()))\n"
    code += "assert not {'torch', 'torchvision', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
