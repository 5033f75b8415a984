import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from kfp import dsl
from kondense.errors import InputError
from kondense.networks.allowed import allowing
from kondense_pipelines.local import cache
from kondense_pipelines.local.cache import ContentCache, kept_from_sweeps


def key(content_cache: ContentCache, **changes: object) -> str:
    arguments = {
        "component_name": "comp-train",
        "image": "python",
        "full_command": ["sh", "-ec"],
        "arguments": {"epochs": 3},
    }
    return content_cache.compute_key(**{**arguments, **changes})


def artifact(directory: Path, content: str = "weights") -> dsl.Model:
    directory.mkdir(parents=True)
    (directory / "weights.bin").write_text(content)
    return dsl.Model(name="model", uri=str(directory), metadata={"accuracy": 0.5})


def test_equal_inputs_at_other_paths_give_the_same_key(tmp_path: Path) -> None:
    first = key(ContentCache(tmp_path, "v"), arguments={"model": artifact(tmp_path / "a"), "epochs": 3})
    second = key(ContentCache(tmp_path, "v"), arguments={"model": artifact(tmp_path / "b"), "epochs": 3})
    assert first == second


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": {"epochs": 4}},
        {"image": "python-2"},
        {"full_command": ["sh", "-c"]},
        {"env_vars": {"A": "1"}},
        {"custom_cache_key": "x"},
    ],
)
def test_whatever_decides_the_outputs_changes_the_key(tmp_path: Path, changes: dict[str, object]) -> None:
    assert key(ContentCache(tmp_path, "v")) != key(ContentCache(tmp_path, "v"), **changes)


def test_other_code_and_other_content_change_the_key(tmp_path: Path) -> None:
    assert key(ContentCache(tmp_path, "v")) != key(ContentCache(tmp_path, "w"))
    first = key(ContentCache(tmp_path, "v"), arguments={"model": artifact(tmp_path / "a")})
    second = key(ContentCache(tmp_path, "v"), arguments={"model": artifact(tmp_path / "b", "others")})
    assert first != second


def test_a_list_of_artifacts_counts_by_content(tmp_path: Path) -> None:
    models = [artifact(tmp_path / "a"), artifact(tmp_path / "b", "others")]
    forward = key(ContentCache(tmp_path, "v"), arguments={"models": models})
    assert forward != key(ContentCache(tmp_path, "v"), arguments={"models": models[::-1]})


def test_a_folder_of_data_counts_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_text("1")
    arguments = {"source": str(folder)}
    before = key(ContentCache(tmp_path, "v"), arguments=arguments)
    assert before == key(ContentCache(tmp_path, "v"), arguments=arguments)
    (folder / "b.png").write_text("2")
    assert before != key(ContentCache(tmp_path, "v"), arguments=arguments)


def test_remote_data_is_never_taken_for_unchanged(tmp_path: Path) -> None:
    arguments = {"import_uri": "s3://bucket/model"}
    assert key(ContentCache(tmp_path, "v"), arguments=arguments) != key(
        ContentCache(tmp_path, "v"), arguments=arguments
    )


NET = "from torch import nn\n\nclass Net(nn.Sequential):\n    act = nn.ReLU()\n"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a network, ``minenet:Net``, that a step may import."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "minenet.py").write_text(NET)
    return tmp_path / "minenet.py"


@pytest.mark.parametrize("field", ["network", "student_network"])
def test_changed_code_of_a_network_changes_the_key(tmp_path: Path, net: Path, field: str) -> None:
    arguments = {field: "minenet:Net"}
    before = key(ContentCache(tmp_path, "v"), arguments=arguments)
    assert before == key(ContentCache(tmp_path, "v"), arguments=arguments)
    net.write_text(NET.replace("ReLU", "Tanh"))
    assert before != key(ContentCache(tmp_path, "v"), arguments=arguments)


@pytest.mark.parametrize("as_import", [True, False])
def test_changed_code_of_the_network_of_a_model_changes_the_key(tmp_path: Path, net: Path, as_import: bool) -> None:
    model = artifact(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text('{"network": {"name": "minenet:Net", "arguments": {}}}')
    arguments = {"import_uri": str(tmp_path / "model")} if as_import else {"model": model}
    with allowing(networks=["minenet:Net"]):
        before = key(ContentCache(tmp_path, "v"), arguments=arguments)
        net.write_text(NET.replace("ReLU", "Tanh"))
        assert before != key(ContentCache(tmp_path, "v"), arguments=arguments)


def test_code_that_a_model_alone_names_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = artifact(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text('{"network": {"name": "torch.nn:Linear", "arguments": {}}}')
    read: list[str] = []
    monkeypatch.setattr(cache, "code_digests", lambda names: read.extend(names) or {})
    key(ContentCache(tmp_path, "v"), arguments={"model": model, "network": "lenet5"})
    assert read == ["lenet5"]


def test_code_that_changes_during_a_run_ends_the_run(tmp_path: Path, net: Path) -> None:
    content_cache = ContentCache(tmp_path / "steps", "v")
    first = key(content_cache, arguments={"network": "minenet:Net"})
    net.write_text(NET.replace("ReLU", "Tanh"))
    content_cache.put(first, {"model": artifact(tmp_path / "a")})  # which code it was made with is not known
    assert content_cache.get(first) is None
    with pytest.raises(InputError, match="the code of minenet:Net must not change during a run"):
        key(content_cache, arguments={"network": "minenet:Net", "epochs": 2})


def test_outputs_come_back_with_their_metadata(tmp_path: Path) -> None:
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "no-file"), metadata={"loss": 0.25})
    ContentCache(tmp_path / "steps", "v").put("k", {"model": artifact(tmp_path / "a"), "metrics": metrics})
    outputs = ContentCache(tmp_path / "steps", "v").get("k")
    assert outputs is not None
    assert isinstance(outputs["model"], dsl.Model) and outputs["model"].uri == str(tmp_path / "a")
    assert outputs["metrics"].metadata == {"loss": 0.25}


@pytest.mark.parametrize("harm", ["change", "remove", "add"])
def test_harmed_outputs_are_not_reused(tmp_path: Path, harm: str) -> None:
    content_cache = ContentCache(tmp_path / "steps", "v")
    content_cache.put("k", {"model": artifact(tmp_path / "a")})
    path = tmp_path / "a" / "weights.bin"
    if harm == "change":
        path.write_text("weighty")
    elif harm == "remove":
        path.unlink()
    else:
        (tmp_path / "a" / "more.bin").write_text("")
    assert content_cache.get("k") is None


def test_a_damaged_entry_is_told_in_one_line_and_ignored(tmp_path: Path) -> None:
    told: list[str] = []
    content_cache = ContentCache(tmp_path, "v", told.append)
    content_cache.put("k", {"model": artifact(tmp_path / "a")})
    whole = (tmp_path / "k.json").read_text()
    lists = whole.replace('"name": "model"', '"name": []')
    no_content = json.dumps({**json.loads(whole), "content": []})
    for text in ("", "[]", "[" * 100_000, '{"format_version": 2}', "{", lists, no_content, whole[: len(whole) // 2]):
        (tmp_path / "k.json").write_text(text)
        assert content_cache.get("k") is None
        assert "\n" not in told[-1] and "k.json" in told[-1] and "it is ignored" in told[-1].lower()
    assert len(told) == 8
    (tmp_path / "k.json").write_text(whole)
    assert content_cache.get("k") and len(told) == 8
    (tmp_path / "k.json").unlink()
    assert content_cache.get("k") is None and len(told) == 8


def test_only_old_unused_results_are_dropped(tmp_path: Path) -> None:
    entries, artifacts = tmp_path / "steps", tmp_path / "artifacts"
    content_cache = ContentCache(entries, "v")
    content_cache.put("kept", {"model": artifact(artifacts / "compress-1" / "train" / "model")})
    content_cache.put("stale", {"model": artifact(artifacts / "compress-2" / "train" / "model")})
    artifact(artifacts / "compress-3" / "train" / "model")
    artifact(artifacts / "compress-4" / "train" / "model")
    long_ago = time.time() - cache.UNUSED_AFTER_S - 1
    os.utime(entries / "stale.json", (long_ago, long_ago))
    for name in ("compress-1", "compress-2", "compress-3"):
        os.utime(artifacts / name, (long_ago, long_ago))
    with kept_from_sweeps(entries, artifacts):
        (artifacts / "compress-5").mkdir()
        with kept_from_sweeps(entries, artifacts):  # a run beside it keeps what it may not know yet
            assert sorted(path.name for path in artifacts.iterdir()) == ["compress-1", "compress-5"]
    assert [path.name for path in entries.glob("*.json")] == ["kept.json"]
    with kept_from_sweeps(entries, artifacts):
        assert [path.name for path in artifacts.iterdir()] == ["compress-1"]


def test_beside_a_living_run_only_old_outputs_are_dropped(tmp_path: Path) -> None:
    for name in ("old", "new"):
        artifact(tmp_path / "artifacts" / name / "train" / "model")
    long_ago = time.time() - cache.ABANDONED_AFTER_S - 1
    os.utime(tmp_path / "artifacts" / "old", (long_ago, long_ago))
    with (tmp_path / "runs.lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with kept_from_sweeps(tmp_path / "steps", tmp_path / "artifacts"):
            assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["new"]


def test_editing_a_component_changes_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "components"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("A = 1\n")
    monkeypatch.setattr(cache.kondense, "__file__", str(package / "__init__.py"))
    before = cache.sources_version()
    assert before == cache.sources_version()
    (package / "a.py").write_text("A = 2\n")
    assert before != cache.sources_version()


@pytest.mark.parametrize(
    "content",
    [
        {"outputs": {}},
        {"outputs": {}, "files": {"a\0b": {}}},
        {"outputs": {}, "files": {"a" * 5000: {}}},  # a name that no file system takes
        {"outputs": {"model": {"uri": 3}}, "files": {}},
        {"outputs": 3, "files": {}},
        {"outputs": {}, "files": {"/usr": {}}},  # a large directory, which is not read
    ],
)
def test_an_entry_of_another_form_is_ignored(tmp_path: Path, content: dict[str, object]) -> None:
    entry = {"format_version": cache.FORMAT_VERSION, "sha256": cache.digest(content), "content": content}
    (tmp_path / "key.json").write_text(json.dumps(entry))
    notices: list[str] = []
    assert ContentCache(tmp_path, "v", notices.append).get("key") is None
    assert len(notices) == (content.get("files") != {"/usr": {}})


def test_an_address_of_this_machine_is_known_by_its_content_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("a")
    forms = ("{}/data", "file://{}/data", "FILE://{}/data", "file://localhost{}/data", "~/data")
    found = [cache.outside_identity(form.format(tmp_path)) for form in forms]
    assert found[0] == cache.tree_digests(tmp_path / "data") and all(each == found[0] for each in found)
    assert cache.outside_identity("s3://bucket/data") != cache.outside_identity("s3://bucket/data")
