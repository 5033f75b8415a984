"""What the command makes of a preflight: the request, the changed defaults, the refusal, the table."""

import dataclasses
import io
from pathlib import Path

import pytest
from kondense.errors import InputError
from kondense.preflight.request import BENT, IMPOSSIBLE, POSSIBLE, Check, Request
from kondense_pipelines import preflight
from kondense_pipelines.cli.app import app
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.parameters import resolve
from kondense_pipelines.graphs.resources import read_resources, with_memory
from kondense_pipelines.local.interrupted import run_ended
from kondense_pipelines.preflight import Preflight, before_compiling, check_places, refuse, request_for
from rich.console import Console
from typer.testing import CliRunner

FINE = Check("images", POSSIBLE, "1x28x28, 10 classes", 0.01)
BENT_PRUNE = Check(
    "prune",
    BENT,
    "0.38 of the macs is removed instead of 0.75: sparsity must be in [0, 1).",
    0.5,
    changes={"prune": {"sparsity": 0.38}},
)


def test_the_request_says_what_the_user_set() -> None:
    settings = ["prune.sparsity=0.6", "distill.epochs=2"]
    configs = resolve("quick", {"network": "lenet300"}, settings)
    plan = read_plan(configs, "pruned,distilled,quantized", ["own=prune:l1 > quantize:static"])
    request = request_for(configs, plan, settings, "pruned,distilled")
    steps = {step.name: step for each in request.candidates.values() for step in each}
    assert steps["prune"].asked_fields == ["sparsity"] and steps["prune"].config["sparsity"] == 0.6
    assert steps["distill"].asked_fields == ["epochs"]
    assert not steps["quantize"].asked
    assert steps["prune 1 of own"].asked and "sparsity" in steps["prune 1 of own"].asked_fields
    assert request.asked == ["pruned", "distilled", "own"]
    assert request.train["network"] == "lenet300"


def test_all_standard_candidates_are_not_asked_for_one_by_one() -> None:
    configs = resolve("quick")
    request = request_for(configs, read_plan(configs))
    assert request.asked == []
    assert not any(step.asked for steps in request.candidates.values() for step in steps)


def test_who_sets_how_long_a_step_trains_does_not_ask_for_the_step() -> None:
    settings = ["prune.epochs=1", "prune.steps=1", "quantize.method=qat", "distill.batch_size=8", "distill.width=0.25"]
    configs = resolve("quick", {}, settings)
    request = request_for(configs, read_plan(configs), settings)
    asked = {step.step for steps in request.candidates.values() for step in steps if step.asked}
    assert asked == {"quantize", "distill"}


def test_a_changed_default_reaches_the_step_and_the_report() -> None:
    configs = Preflight([FINE, BENT_PRUNE], 1.0).applied(resolve("quick"))
    assert configs["prune"].to_dict()["sparsity"] == 0.38
    assert configs["report"].to_dict()["note"] == f"prune: {BENT_PRUNE.note}"
    assert Preflight([FINE], 1.0).applied(resolve("quick")) == resolve("quick")


def test_only_what_the_run_needs_is_refused() -> None:
    refuse(Preflight([FINE, BENT_PRUNE, Check("distill", IMPOSSIBLE, "no.")], 1.0))
    refused = [Check(name, IMPOSSIBLE, "no luck.", refused=True) for name in ("network", "export")]
    with pytest.raises(ValueError, match=r"network is impossible: no luck\. \(1 more: export\)"):
        refuse(Preflight(refused, 1.0))


def test_the_table_shows_brackets_as_they_are() -> None:
    screen = io.StringIO()
    Console(file=screen, width=140).print(Preflight([FINE, BENT_PRUNE], 1.0).table())
    assert "sparsity must be in [0, 1)." in screen.getvalue()
    assert "changed" in screen.getvalue()


def test_a_narrow_table_shows_the_whole_note() -> None:
    screen = io.StringIO()
    long = dataclasses.replace(BENT_PRUNE, name="export distilled-quantized", run_s=3e4, memory_bytes=3_210_000_000)
    Console(file=screen, width=80).print(Preflight([FINE, long], 1.0).table())
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = [word for line in lines for word in line.split()]
    start = words.index("0.38")
    assert set(BENT_PRUNE.note.split()) <= set(words[start:])
    assert "3.2 GB" in screen.getvalue()


def test_a_network_whose_code_is_elsewhere_is_compiled_untried() -> None:
    configs = resolve("quick", {"network": "module_of_the_image.net:make"})
    assert before_compiling(request_for(configs, read_plan(configs))).checks == ()


def test_a_run_says_what_it_does_before_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()

    def examined(request: Request, server: object) -> Preflight:
        screen.write("examined\n")
        return Preflight([FINE], 1.0)

    monkeypatch.setattr(preflight, "examined", examined)
    preflight.before_work(Request({}, {}), Console(file=screen, width=140))
    said, tried, result = screen.getvalue().splitlines()
    assert (said.strip(), tried) == (preflight.TELLS, "examined")
    assert result.startswith("✓ preflight")


def test_an_interrupted_run_is_not_examined_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen, seen = io.StringIO(), []
    found = Preflight([FINE, BENT_PRUNE], 1.0)

    def examined(request: Request, server: object) -> Preflight:
        seen.append(request.train["epochs"])
        return found

    def before_work(epochs: int) -> Preflight:
        request = Request({}, {"epochs": epochs})
        return preflight.before_work(request, Console(file=screen, width=140), directory=tmp_path)

    monkeypatch.setattr(preflight, "examined", examined)
    assert before_work(1).checks == before_work(1).checks == found.checks  # of the same request
    assert screen.getvalue().splitlines()[-1] == f"✓ {'preflight':32}   as before"
    assert screen.getvalue().count("! ") == 2  # what was changed is told again
    before_work(2)
    (tmp_path / "preflight.json").write_text("{")
    before_work(2)
    run_ended(tmp_path)
    before_work(2)
    assert seen == [1, 2, 2, 2]
    found = Preflight([dataclasses.replace(FINE, refused=True)], 1.0)
    for _ in range(2):
        with pytest.raises(InputError, match="is impossible"):
            before_work(3)
    assert seen[4:] == [3, 3]  # what is refused may have been mended


TRAINED = Check("network", POSSIBLE, "it trains", 1.0, run_s=250.0, memory_bytes=3_210_000_000)


def test_the_table_tells_what_a_run_takes() -> None:
    found = Preflight([FINE, TRAINED, dataclasses.replace(TRAINED, name="distill", memory_bytes=74 * 10**7)], 1.0)
    screen = io.StringIO()
    Console(file=screen, width=140).print(found.table())
    assert "4 min" in screen.getvalue() and "3.2 GB" in screen.getvalue() and "740 MB" in screen.getvalue()
    assert found.takes == (
        "training takes about 8 min on this machine and 3.2 GB of memory, estimated from single steps"
    )
    assert Preflight([FINE], 1.0).takes == ""


@pytest.mark.parametrize(
    ("texts", "needed", "expected"),
    [
        ([], 0, ("2Gi", "8Gi")),
        ([], 1.5 * 2**30, ("2Gi", "8Gi")),
        ([], 2.5 * 2**30, ("4Gi", "8Gi")),
        ([], 9 * 2**30, ("12Gi", "24Gi")),
        (["memory_request=1Gi"], 9 * 2**30, ("1Gi", "8Gi")),
        (["memory_request=6Gi"], 9 * 2**30, ("6Gi", "12Gi")),
        (["memory_limit=9G"], 9 * 2**30, ("8Gi", "9G")),
        (["memory_limit=512Mi", "memory_request=256Mi"], 9 * 2**30, ("256Mi", "512Mi")),
        (["memory_limit="], 9 * 2**30, ("12Gi", "")),
    ],
)
def test_steps_get_the_memory_that_training_takes(texts: list[str], needed: float, expected: tuple[str, str]) -> None:
    found = with_memory(read_resources(texts), texts, int(needed))
    assert (found.memory_request, found.memory_limit) == expected


def test_a_source_that_is_no_directory_of_this_machine_is_refused(tmp_path):
    (tmp_path / "photos.zip").touch()
    for name, why in (("photos.zip", "which is a file: unpack it"), ("phots", "which does not exist")):
        with pytest.raises(InputError, match=f"source must be a directory or a URI .*/{name}, {why}"):
            check_places(Request({"source": str(tmp_path / name)}, {}))
    for source in ("", str(tmp_path), "s3://bucket/photos"):
        check_places(Request({"source": source}, {}))


def test_a_model_to_import_that_is_not_there_is_refused_before_any_work(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "weights.pt").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").touch()
    for name, why in (("weights.pth", "which does not exist"), ("folder", "which has no model.json")):
        with pytest.raises(InputError, match=f"import_uri must be the directory of a model .*/{name}, {why}"):
            check_places(Request({}, {"import_uri": str(tmp_path / name)}))
    for uri in ("", str(tmp_path / "weights.pt"), str(tmp_path / "model"), "s3://bucket/model"):
        check_places(Request({}, {"import_uri": uri}))
    output = tmp_path / "run"
    given = ["--no-check", f"--output={output}", f"--set=train.import_uri={tmp_path / 'weights.pth'}"]
    result = CliRunner().invoke(app, ["run", *given])
    assert result.exit_code == 2 and "weights.pth, which does not exist" in result.stderr
    assert not output.exists()
