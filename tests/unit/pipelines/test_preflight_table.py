"""What the command makes of a preflight: the request, the changed defaults, the refusal, the table."""

import io

import pytest
from kondense.preflight.request import BENT, IMPOSSIBLE, POSSIBLE, Check, Request
from kondense_pipelines import preflight
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.parameters import resolve
from kondense_pipelines.preflight import Preflight, before_compiling, refuse, request_for
from rich.console import Console

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
    assert steps["distill"].asked and "sparsity" not in steps["distill"].asked_fields
    assert not steps["quantize"].asked
    assert steps["prune 1 of own"].asked and "sparsity" in steps["prune 1 of own"].asked_fields
    assert request.asked == ["pruned", "distilled", "own"]
    assert request.train["network"] == "lenet300"


def test_all_standard_candidates_are_not_asked_for_one_by_one() -> None:
    configs = resolve("quick")
    request = request_for(configs, read_plan(configs))
    assert request.asked == []
    assert not any(step.asked for steps in request.candidates.values() for step in steps)


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
