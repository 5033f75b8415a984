import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from kondense.artifacts.report import FORMAT_VERSION
from kondense.errors import InputError
from kondense.files import ArtifactError, file_digests
from kondense.publish.config import PublishConfig
from kondense.publish.stage import run
from kondense.publish.versions import version_id
from kondense.report.document import build_report
from kondense.store.local import LocalStore
from kondense.store.store import DamagedError
from kondense_pipelines.cli import published
from kondense_pipelines.cli.models import find_version, list_models, pull_model, show_model, verify_models
from kondense_pipelines.cli.summary import candidate_table
from rich.console import Console

from tests.support.publish_makers import make_publishable
from tests.support.report_makers import make_evaluation, make_record


@pytest.fixture
def store(tmp_path: Path, digits16_dir: Path) -> LocalStore:
    """Two versions of model ``digits``, the second one champion, and one of ``others``."""
    store = LocalStore(tmp_path / "store")
    for seed, name in enumerate(("digits", "digits", "others")):
        made = make_publishable(tmp_path / str(seed), digits16_dir, seed=seed, test_accuracy=0.9 + 0.001 * seed)
        config = PublishConfig(store_uri=store.uri, model_name=name)
        assert run(config, **made._asdict(), receipt_dir=tmp_path / "receipt")["published"] == 1.0
    return store


def test_lists_versions_oldest_first_and_marks_the_champion(store: LocalStore) -> None:
    rows = list_models(store)
    assert [(row.model, row.champion) for row in rows] == [("digits", False), ("digits", True), ("others", True)]
    assert [row.version.record["test_accuracy"] for row in rows] == pytest.approx([0.9, 0.901, 0.902])
    assert rows[0].version.created <= rows[1].version.created
    assert [row.model for row in list_models(store, "others")] == ["others"]


def test_an_empty_store_has_no_models(tmp_path: Path) -> None:
    assert list_models(LocalStore(tmp_path / "none")) == []
    with pytest.raises(InputError, match="must hold published models to verify, but holds none"):  # a wrong address?
        verify_models(LocalStore(tmp_path / "none"))


@pytest.mark.parametrize(
    "version", ["", "../../../evil", "/etc", "v" * 1_000_000, "\x1b[2J", "0" * 11, "0" * 12 + "/x"]
)
def test_a_champion_that_is_no_version_is_refused(
    store: LocalStore, tmp_path: Path, digits16_dir: Path, version: str
) -> None:
    path = Path(store.root) / "models" / "digits" / "champion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    made = make_publishable(tmp_path / "next", digits16_dir, seed=9, test_accuracy=0.95)
    for use in (
        lambda: list_models(store),
        lambda: show_model(store, "digits"),
        lambda: run(
            PublishConfig(store_uri=store.uri, model_name="digits"), **made._asdict(), receipt_dir=tmp_path / "r"
        ),
    ):
        with pytest.raises(ArtifactError, match="champion.json: version must be 12 of 0-9 and a-f") as caught:
            use()
        assert len(str(caught.value)) < 400


def test_folders_that_could_not_be_asked_for_are_no_models(store: LocalStore) -> None:
    rows = list_models(store)
    root = Path(store.root) / "models"
    shutil.copytree(root / "others", root / "\x1b[2J\n")
    version = next(path for path in (root / "others").iterdir() if path.is_dir())
    shutil.copytree(version, root / "others" / "\x1b[2J")
    shutil.copytree(root / "others", os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))
    assert list_models(store) == rows
    assert not any(each.problem for each in verify_models(store))


def test_shows_what_a_version_is(store: LocalStore) -> None:
    shown = show_model(store, "digits")
    assert shown["champion"]["version"] == shown["version"]
    assert shown["description"]["network"]["name"] == "lenet300" and "weights.safetensors" in shown["files"]
    earlier = shown["champion"]["previous"]
    assert show_model(store, "digits", earlier[:5])["champion"] is None


def test_pulls_a_version_as_it_was_published(store: LocalStore, tmp_path: Path) -> None:
    pulled = pull_model(store, "digits", tmp_path / "out")
    assert file_digests(tmp_path / "out") == pulled.version.files
    assert set(pulled.version.files) - set(pulled.fetched) == {"weights.safetensors"}
    fetched_bytes = sum((tmp_path / "out" / name).stat().st_size for name in pulled.fetched)
    assert pulled.fetched_bytes == fetched_bytes
    first = find_version(store, "digits", list_models(store)[0].version.id)
    assert pull_model(store, "digits", tmp_path / "out", first.id).version.id == first.id
    assert file_digests(tmp_path / "out") == first.files
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").write_text("hours of it")
    with pytest.raises(ValueError, match="must be new, empty or an earlier pull"):
        pull_model(store, "digits", tmp_path / "mine")
    assert (tmp_path / "mine" / "work").exists()


@pytest.mark.parametrize("kz", [b"\x93kz\n of another version", None])
def test_fetches_the_weights_where_the_kz_file_does_not_give_them(
    store: LocalStore, tmp_path: Path, kz: bytes | None
) -> None:
    pull_model(store, "digits", tmp_path / "other")
    (tmp_path / "other" / "weights.kz").unlink()
    if kz is not None:
        (tmp_path / "other" / "weights.kz").write_bytes(kz)
    prefix = f"models/digits/{version_id(file_digests(tmp_path / 'other'))}"
    store.upload_directory(prefix, tmp_path / "other")
    pulled = pull_model(store, "digits", tmp_path / "out", prefix.rpartition("/")[2])
    assert file_digests(tmp_path / "out") == pulled.version.files
    assert "weights.safetensors" in pulled.fetched


def test_verify_finds_the_damaged_file(store: LocalStore, tmp_path: Path) -> None:
    assert [(result.problem, result.files) for result in verify_models(store)] == [("", 8)] * 3
    version = find_version(store, "digits").id
    for content in (b"trunc", b""):
        store.write(f"models/digits/{version}/model.onnx", content)
        results = verify_models(store, "digits")
        assert [bool(result.problem) for result in results] == [result.version == version for result in results]
        assert "model.onnx must have sha256" in next(result.problem for result in results if result.problem)
    with pytest.raises(DamagedError, match="model.onnx"):
        pull_model(store, "digits", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    store.delete(f"models/digits/{version}/model.onnx")
    assert "does not exist" in verify_models(store, "digits", version)[0].problem
    store.write(f"models/digits/{version}/manifest.json", b"{")
    assert "must be JSON" in verify_models(store, "digits", version)[0].problem


def test_verify_finds_a_version_under_a_wrong_name(store: LocalStore, tmp_path: Path) -> None:
    pull_model(store, "others", tmp_path / "out")
    store.upload_directory("models/others/0123456789ab", tmp_path / "out")
    problems = {result.version: result.problem for result in verify_models(store, "others")}
    assert "must be named by the digest of its files" in problems.pop("0123456789ab")
    assert list(problems.values()) == [""]


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("unknown", "champion", "published are: digits, others"),
        ("digits", "zzz", "champion or the beginning of one of [0-9a-f]{12}, [0-9a-f]{12}, but got 'zzz'"),
        ("digits", "", "but got ''"),
        ("../digits", "champion", "model_name must be"),
    ],
)
def test_what_is_not_there(store: LocalStore, tmp_path: Path, name: str, version: str, text: str) -> None:
    for action in (find_version, show_model, lambda *args: pull_model(args[0], args[1], tmp_path / "out", args[2])):
        with pytest.raises(ValueError, match=text):
            action(store, name, version)


HOSTILE = "[/]\x1b[2J[link=file:///etc/passwd]x[/link]"


def test_what_others_wrote_into_the_bucket_neither_breaks_nor_rules_the_terminal(
    store: LocalStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    manifest = next(Path(store.root).rglob("manifest.json"))
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"created": HOSTILE}))
    manifest.parent.rename(manifest.parent.with_name("[red]"))
    published.list_models(store=store.uri)
    shown = capsys.readouterr().out
    assert "[/]\\x1b[2J[link=file:///etc/passwd]x[/link]" in shown and "[red]" in shown
    assert "\x1b" not in shown and "\x1b]8" not in shown
    with pytest.raises(typer.Exit):
        published.verify(name="", version="", store=store.uri)
    assert "[red]" in capsys.readouterr().out


def test_a_report_of_others_neither_breaks_nor_rules_the_terminal(tmp_path: Path) -> None:
    evaluations = [make_evaluation(name) for name in ("teacher", "pruned")]
    report: dict[str, Any] = build_report(
        evaluations,
        ["00" * 32] * 2,
        title="",
        objective="bytes",
        max_validation_drop=0.5,
        record=make_record("report", "report bytes", []),
    )
    for model in (report["teacher"], *report["candidates"]):
        model["name"] += HOSTILE
    report |= {"title": HOSTILE, "reason": HOSTILE}
    (tmp_path / "report.json").write_text(json.dumps(report))
    table, reason = candidate_table(tmp_path / "report.json")
    console = Console(file=io.StringIO(), width=400, force_terminal=True)
    console.print(table)
    console.print(reason)
    assert "\x1b[2J" not in console.file.getvalue() and "]8;" not in console.file.getvalue()
    assert console.file.getvalue().count("\\x1b[2J") >= 3


def test_the_table_of_large_models_fits_in_100_columns(tmp_path: Path) -> None:
    def model(name: str) -> dict[str, Any]:
        spread = {"low": -0.109, "high": 0.102}
        difference = {"test_accuracy": -0.1, "test_interval": spread, "bytes_ratio": 123.4, "latency_ratio": 12.34}
        sizes = {"bytes": {"kz": 102_345_678}, "latency_ms": {"batch_1": {"median": 123.456}}}
        return {"name": name, "test_accuracy": 1.0, "difference": difference, **sizes}

    report = {"format_version": FORMAT_VERSION, "title": "", "reason": "", "chosen": "pruned-distilled-quantized"}
    report |= {"teacher": model("teacher"), "candidates": [model("pruned-distilled-quantized")]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    console = Console(file=io.StringIO(), width=100)
    console.print(candidate_table(tmp_path / "report.json")[0])
    assert "102,345,678" in console.file.getvalue() and console.file.getvalue().count("123.456") == 2


def test_needs_no_torch() -> None:
    code = "import sys; import kondense_pipelines.cli.models\n"
    code += "assert not {'torch', 'kfp', 'minio', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
