"""Labels from an exported model alone: what they are, where the model may lie, what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from kondense.artifacts.model import Model, save_model
from kondense.data.dataset import Dataset
from kondense.export.onnx import export_onnx
from kondense.files import ArtifactError, sha256
from kondense.measuring.accuracy import predict
from kondense_pipelines.cli.app import app
from kondense_pipelines.cli.infer import exported_model, infer
from PIL import Image
from typer.testing import CliRunner

from tests.support.quantize_makers import make_dataset, make_model

IMAGES = 8


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    return make_model("lenet5", dataset, width=0.5)


@pytest.fixture(scope="module")
def place(dataset: Dataset, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts, one of which takes pixels, another model, and test images as files."""
    folder = tmp_path_factory.mktemp("infer")
    other = make_model("lenet5", dataset, width=0.5, steps=5)
    save_model(folder / "model", model, {"model.onnx": export_onnx(model, dataset)})
    save_model(folder / "pixels", model, {"model.onnx": export_onnx(model, dataset, uint8_input=True)})
    save_model(folder / "other", other, {"model.onnx": export_onnx(other, dataset)})
    save_model(folder / "not-exported", model)
    for index, image in enumerate(dataset.test.images[:IMAGES]):
        Image.fromarray(image[0].numpy()).save(folder / f"{index}.png")
    return folder


def pictures(place: Path) -> list[Path]:
    return [place / f"{index}.png" for index in range(IMAGES)]


@pytest.mark.parametrize("name", ["model", "pixels"])
def test_labels_and_probabilities_are_those_of_torch(name: str, place: Path, dataset: Dataset, model: Model) -> None:
    answers = infer(place / name / "model.onnx", pictures(place), top=3)
    expected_NK = predict(model.module, dataset.test, dataset)[:IMAGES].softmax(1)
    values, classes = torch.sort(expected_NK, dim=1, descending=True)
    for row, answer in enumerate(answers):
        assert answer["image"] == str(place / f"{row}.png")
        assert [each["label"] for each in answer["labels"]] == [dataset.classes[index] for index in classes[row, :3]]
        found = [each["probability"] for each in answer["labels"]]
        assert found == pytest.approx(values[row, :3].tolist(), abs=1e-4)


def test_neither_torch_nor_onnx_is_loaded(place: Path) -> None:
    code = (
        "import sys; from kondense_pipelines.cli.app import app\n"
        f"try:\n    app(['infer', {str(place / 'model')!r}, {str(place / '0.png')!r}])\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in ('torch', 'onnx', 'safetensors', 'kfp') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(place / "0.png"))
    assert done.stderr.split() == []


def run(*arguments: object) -> tuple[int, str]:
    """Return exit code and output of ``kondense infer``."""
    result = CliRunner().invoke(app, ["infer", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_model_may_be_a_file_an_artifact_a_run_an_address_or_a_published_name(place: Path, tmp_path: Path) -> None:
    first = pictures(place)[0]
    expected = infer(place / "model" / "model.onnx", [first])
    shutil.copytree(place / "model", tmp_path / "run" / "chosen")
    for word in (place / "model" / "model.onnx", place / "model", tmp_path / "run", (place / "model").as_uri()):
        code, output = run(word, first, "--json")
        assert (code, json.loads(output)) == (0, expected)
    code, output = run("nobody", first, "--store", tmp_path / "store")
    assert code == 2 and "model 'nobody' is not published" in output


def test_one_line_per_image_with_label_and_probability(place: Path) -> None:
    code, output = run(place / "model", *pictures(place), "--top", 2)
    assert code == 0
    answers = infer(place / "model" / "model.onnx", pictures(place), top=2)
    for line, answer in zip(output.splitlines(), answers, strict=True):
        first, second = answer["labels"]
        assert line.startswith(answer["image"])
        assert f"{first['label']} {100 * first['probability']:.1f} %  {second['label']}" in line


def test_an_exchanged_file_is_found_out_by_its_digest(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "mixed")
    shutil.copy(place / "other" / "model.onnx", tmp_path / "mixed" / "model.onnx")
    code, output = run(tmp_path / "mixed", place / "0.png")
    assert code == 2 and "model.onnx must have sha256" in output
    # Even where model.json was changed to fit: the file itself says which model it is of.
    description = json.loads((tmp_path / "mixed" / "model.json").read_text())
    description["files"]["model.onnx"] = sha256(tmp_path / "mixed" / "model.onnx")
    (tmp_path / "mixed" / "model.json").write_text(json.dumps(description))
    code, output = run(tmp_path / "mixed", place / "0.png")
    assert code == 2 and "must be the export of model" in output


def change(source: Path, target: Path, **entries: object) -> Path:
    """Write ``source`` again with other metadata; None takes an entry out."""
    proto = onnx.load(source)
    known = {entry.key: entry.value for entry in proto.metadata_props}
    known |= {key: json.dumps(value) for key, value in entries.items()}
    onnx.helper.set_model_props(proto, {key: value for key, value in known.items() if value != "null"})
    onnx.save(proto, target)
    return target


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ({"format_version": None}, "metadata of format_version 1, but got None"),
        ({"classes": ["one", "two"]}, "the metadata's number of classes must be the graph's, 10, but got 2"),
        ({"classes": []}, "must name at least one class"),
        ({"shape": [1, 8, 8]}, r"the metadata's shape must be the graph's, \[1, 16, 16\], but got \[1, 8, 8\]"),
        ({"std": [0.0]}, r"std.* must be in \(0, inf\), but got 0.0"),
        ({"std": [0.5, 0.5]}, r"mean and std \[C\]"),
        ({"mean": None}, "must have a key 'mean', but it is missing"),
        ({"input": "uint8"}, "the metadata's input must be the graph's, float32, but got uint8"),
        ({"input": "text"}, "input must be float32 or uint8, but got 'text'"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    entries: dict[str, object], rule: str, place: Path, tmp_path: Path
) -> None:
    changed = change(place / "model" / "model.onnx", tmp_path / "changed.onnx", **entries)
    with pytest.raises(ArtifactError, match=rule):
        infer(changed, pictures(place))


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("absent.onnx", "must be an ONNX file, a model's directory or a published name, but is missing"),
        ("some/where", "must be an ONNX file, a model's directory or a published name, but is missing"),
        ("0.png", "must be an ONNX model"),
        ("not-exported", "must have model.onnx, which the evaluate stage writes, but does not"),
        (".", "must hold a file model.json, but it is missing"),
    ],
)
def test_what_is_no_model_is_one_line(word: str, rule: str, place: Path) -> None:
    code, output = run(place / word, place / "0.png")
    assert code == 2
    assert rule in output and output.count("\n") == 1


def test_bad_arguments_are_refused(place: Path) -> None:
    file = place / "model" / "model.onnx"
    assert run(file, place / "0.png", "--top", 0) == (2, "error: top must be at least 1, but got 0.\n")
    assert run(file, place / "0.png", "--threads", 0) == (2, "error: threads must be at least 1, but got 0.\n")
    with pytest.raises(ValueError, match="at least one file, but got none"):
        infer(file, [])


def test_an_address_without_a_model_is_refused(tmp_path: Path) -> None:
    rule = r"must be a Model artifact, but has no model\.json"
    with pytest.raises(ValueError, match=rule), exported_model(tmp_path.as_uri(), None):
        pass
