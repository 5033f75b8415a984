import concurrent.futures
import dataclasses
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping

import grpc
import pytest
import torch
from kondense import cli, failure
from kondense.artifacts.model import load_model
from kondense.data.dataset import save_dataset
from kondense.errors import InputError
from kondense.katib.api import messages, services
from kondense.recipes import parse_recipe
from kondense.store.open import open_store
from kondense.training.trainer import NonFiniteLossError
from kondense.trial import relay
from kondense.trial.config import TrialConfig
from kondense.trial.push import report
from kondense.trial.reason import failure_key, kept_reason
from kondense.trial.score import score
from kondense.trial.stage import run

from tests.support.toy_training import toy_dataset

pytestmark = pytest.mark.usefixtures("log_on_stdout")


SETTINGS = {
    "train.network": "lenet300",
    "train.epochs": "2",
    "train.max_epochs": "6",
    **{f"{stage}.epochs": "1" for stage in ("prune", "distill")},
    **{f"{stage}.batch_size": "32" for stage in ("train", "prune", "distill", "quantize")},
    **{f"{stage}.learning_rate": "0.02" for stage in ("train", "prune", "distill")},
}


@pytest.fixture
def config(tmp_path) -> TrialConfig:
    save_dataset(tmp_path / "dataset", toy_dataset())
    return TrialConfig(
        dataset_uri=str(tmp_path / "dataset"),
        store_uri=str(tmp_path / "store"),
        trial_name="t",
        settings=json.dumps(SETTINGS),
        device="cpu",
    )


def changed(config: TrialConfig, settings: Mapping[str, object] | None = None, **own: object) -> TrialConfig:
    """Return the trial with other parameters, ``settings`` by <stage>.<field>."""
    texts = {name: str(value) for name, value in (settings or {}).items()}
    return dataclasses.replace(config, settings=json.dumps({**json.loads(config.settings), **texts}), **own)


def weights(config: TrialConfig, tmp_path) -> dict[str, torch.Tensor]:
    directory = tmp_path / f"pulled-{config.trial_name}"
    open_store(config.store_uri).download_directory(f"trials/{config.trial_name}", directory)
    return load_model(directory).module.state_dict()


def trained_epochs(output: str) -> list[int]:
    return [int(line.split("/")[0].removeprefix("epoch ")) for line in output.splitlines() if line.startswith("epoch ")]


def test_a_promotion_trains_the_missing_epochs_only_and_ends_like_a_straight_trial(config, tmp_path, capsys):
    run(config)
    capsys.readouterr()
    run(changed(config, {"train.epochs": 6}, trial_name="promoted"))
    assert trained_epochs(capsys.readouterr().out) == [3, 4, 5, 6]
    straight = changed(config, {"train.epochs": 6}, trial_name="straight", store_uri=str(tmp_path / "other"))
    run(straight)
    first = weights(dataclasses.replace(config, trial_name="promoted"), tmp_path)
    second = weights(straight, tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_other_hyperparameters_do_not_resume(config, capsys):
    run(config)
    capsys.readouterr()
    run(changed(config, {"train.epochs": 6, "train.learning_rate": 0.03}, trial_name="other"))
    assert trained_epochs(capsys.readouterr().out) == [1, 2, 3, 4, 5, 6]


def test_changed_code_of_the_network_does_not_resume(config, capsys, tmp_path, monkeypatch):
    code = "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self, classes, channels, image_size):\n"
    code += "        super().__init__(nn.Flatten(), nn.ReLU(), nn.Linear(channels * image_size**2, classes))\n"
    monkeypatch.syspath_prepend(tmp_path)
    for activation in ("ReLU", "Tanh"):
        (tmp_path / "trialnet.py").write_text(code.replace("ReLU", activation))
        monkeypatch.delitem(sys.modules, "trialnet", raising=False)  # as in a new process
        run(changed(config, {"train.network": "trialnet:Net"}, trial_name=activation))
        assert trained_epochs(capsys.readouterr().out) == [1, 2]
    run(changed(config, {"train.network": "trialnet:Net", "train.epochs": 3}, trial_name="promoted"))
    assert trained_epochs(capsys.readouterr().out) == [3]


def flags_of(config: TrialConfig) -> list[str]:
    own = {"dataset-uri": config.dataset_uri, "store-uri": config.store_uri, "trial-name": config.trial_name}
    return [f"--{name}={value}" for name, value in {**own, "device": "cpu", **json.loads(config.settings)}.items()]


def test_two_trials_racing_for_one_key_do_no_harm(config, tmp_path, warm_process):
    configs = [changed(config, {"train.epochs": 6}, trial_name=name) for name in ("a", "b")]
    commands = [["kondense.cli", "trial", *flags_of(each)] for each in configs]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda command: warm_process.run(command, os.environ), commands))
    assert [each.returncode for each in ended] == [0, 0], ended
    a, b = (weights(each, tmp_path) for each in configs)
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize(
    "recipe", ["train > prune > quantize", "train > distill > prune", "train > distill > quantize"]
)
def test_recipes_run_in_order_and_make_the_model_smaller(config, recipe, tmp_path):
    plain = run(config)
    methods = {"quantize.method": "weight_only", "quantize.bits": 4, "prune.method": "magnitude"}
    small = run(changed(config, methods, recipe=recipe, trial_name="small"))
    assert small["size_bytes"] < plain["size_bytes"] / 2
    directory = tmp_path / "small"
    open_store(config.store_uri).download_directory("trials/small", directory)
    stages = [record["stage"] for record in load_model(directory).lineage]
    assert stages[-1] == parse_recipe(recipe)[-1].stage


def test_a_recipe_sets_each_step_and_a_pruned_network_learns_from_its_own_teacher(config, tmp_path):
    recipe = "prune:magnitude:0.5:epochs=1 > distill:logits:epochs=2 > prune:magnitude:0.8:epochs=1 > quantize:static"
    # The width is for a new student, which this recipe has none of.
    run(changed(config, {"distill.width": 0.25}, recipe=recipe, trial_name="long"))
    open_store(config.store_uri).download_directory("trials/long", tmp_path / "long")
    lineage = load_model(tmp_path / "long").lineage
    assert [record["stage"] for record in lineage] == ["train", "prune", "distill", "prune", "quantize"]
    assert [record["config"].get("sparsity") for record in lineage if record["stage"] == "prune"] == [0.5, 0.8]
    assert lineage[2]["config"]["epochs"] == 2
    assert lineage[2]["inputs"]["teacher"] == lineage[1]["inputs"]["model"] == lineage[3]["inputs"]["teacher"]
    assert lineage[2]["metrics"]["parameters"] == lineage[2]["metrics"]["parameters_teacher"]


def test_a_bad_parameter_of_a_recipe_fails_before_training(config):
    with pytest.raises(ValueError, match="sparsity must be in"):
        dataclasses.replace(config, recipe="prune:l1:1.5")
    with pytest.raises(
        ValueError, match=r"unknown parameter 'speed' of PruneConfig \(did you mean seed\?\); the parameters are"
    ):
        dataclasses.replace(config, recipe="prune:speed=3")


def test_a_step_that_the_network_cannot_take_is_refused_before_the_training(config, capsys):
    far = changed(config, {"train.network": "lenet5"}, recipe="prune:l1:0.999 > quantize")
    with pytest.raises(ValueError, match=r"prune is impossible: sparsity must be at most"):
        run(far)
    assert "epoch" not in capsys.readouterr().out  # nor are the epochs of the preflight read as the trial's


def test_a_given_teacher_is_not_trained_and_the_resource_goes_to_fine_tuning(config, tmp_path, capsys):
    run(config)
    open_store(config.store_uri).download_directory("trials/t", tmp_path / "teacher")
    capsys.readouterr()
    tuned = dataclasses.replace(
        config,
        teacher_uri=str(tmp_path / "teacher"),
        recipe="train > prune",
        settings=json.dumps({**SETTINGS, "prune.method": "magnitude", "prune.steps": "2", "prune.epochs": "3"}),
        trial_name="tuned",
    )
    run(tuned)
    # Three epochs of fine-tuning, during which weights are zeroed, and no training before them.
    assert trained_epochs(capsys.readouterr().out) == [1, 2, 3]
    open_store(config.store_uri).download_directory("trials/tuned", tmp_path / "tuned")
    assert load_model(tmp_path / "tuned").lineage[1]["summary"].startswith("import lenet300")


def test_metrics_are_finite_and_scored_by_the_stated_formula(config):
    tight = dataclasses.replace(config, size_budget_bytes=1000, size_weight=0.1, latency_budget_ms=1e6)
    metrics = run(tight)
    assert all(math.isfinite(value) for value in metrics.values())
    expected = metrics["validation_accuracy"] - 0.1 * math.log2(metrics["size_bytes"] / 1000)
    assert metrics["score"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "latency", "expected"), [(500, 0.5, 0.9), (1000, 1.0, 0.9), (2000, 1.0, 0.88), (1000, 4.0, 0.8)]
)
def test_score_counts_doublings_above_the_budgets(config, size, latency, expected):
    config = dataclasses.replace(
        config, size_budget_bytes=1000, size_weight=0.02, latency_budget_ms=1.0, latency_weight=0.05
    )
    assert score(config, 0.9, size, latency) == pytest.approx(expected)


def test_a_diverging_trial_fails_and_reports_nothing(config, monkeypatch):
    manager = DatabaseManager(0)
    monkeypatch.setenv("KATIB_TRIAL_NAME", "t")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", manager.address)
    diverging = {"learning_rate": 100.0, "momentum": 0.999, "weight_decay": 1.0, "epochs": 6}
    try:
        with pytest.raises(NonFiniteLossError):
            run(changed(config, {f"train.{name}": value for name, value in diverging.items()}))
    finally:
        manager.server.stop(None)
    assert manager.received == []
    store = open_store(config.store_uri)
    assert not store.exists("trials/t/manifest.json")
    assert store.read("failures/t.txt").decode().startswith("the loss must stay finite, but got ")


def test_a_reason_in_a_bucket_that_others_write_to_is_one_line(tmp_path):
    store = open_store(str(tmp_path))
    assert kept_reason(store, "t") == ""
    for content, line in ((b" \n", ""), (b"lost:\n\tx\x1b[2J\xff\n", "lost: x\\x1b[2J\N{REPLACEMENT CHARACTER}")):
        store.write(failure_key("t"), content)
        assert kept_reason(store, "t") == line
    store.write(failure_key("t"), b"x" * 10**6)
    assert kept_reason(store, "t") == "x" * failure.LONGEST


def test_a_trial_that_ends_well_leaves_no_reason_of_an_earlier_failure(config):
    with pytest.raises(ValueError, match="must be an artifact"):
        run(dataclasses.replace(config, dataset_uri="nowhere"))
    store = open_store(config.store_uri)
    assert b"the Job kondense-inputs makes the artifacts that the Experiments name" in store.read("failures/t.txt")
    run(config)
    assert not store.exists("failures/t.txt")


@pytest.mark.parametrize(
    "flag", ["--train.momentum=1.0", "--train.epochs=0", "--prune.sparsity=abc", "--metrics=accuracy"]
)
def test_a_refused_hyperparameter_leaves_its_reason_too(config, flag, capsys):
    """A space that reaches beyond what a trial takes: the commonest trial that fails."""
    where = [f"--dataset-uri={config.dataset_uri}", f"--store-uri={config.store_uri}", "--trial-name=outside"]
    assert cli.main(["trial", *where, flag]) == 2
    reason = open_store(config.store_uri).read("failures/outside.txt").decode().strip()
    assert f"error: {reason}" in capsys.readouterr().err
    assert flag[2:].partition("=")[0].replace("train.", "train: ") in reason


@pytest.fixture
def manager(monkeypatch) -> Iterator["DatabaseManager"]:
    found = DatabaseManager(0)
    monkeypatch.setenv("KATIB_TRIAL_NAME", "t")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", found.address)
    yield found
    found.server.stop(None)


def test_katib_is_told_of_each_epoch_and_of_what_is_declared_alone(config, manager):
    found = run(dataclasses.replace(config, metrics="validation_accuracy,size_bytes", report_epochs=True))
    told = [
        {log.metric.name: float(log.metric.value) for log in request.observation_log.metric_logs}
        for request in manager.received
    ]
    assert [sorted(each) for each in told] == [["validation_accuracy"]] * 2 + [["size_bytes", "validation_accuracy"]]
    assert told[-1] == {name: pytest.approx(found[name]) for name in told[-1]}
    stamps = [request.observation_log.metric_logs[0].time_stamp for request in manager.received]
    assert stamps == sorted(set(stamps))  # the latest one is the last one, also within a second
    with pytest.raises(ValueError, match="metrics must be one of .*, but got 'loss'"):
        dataclasses.replace(config, metrics="loss")


def test_an_epoch_that_katib_does_not_take_does_not_end_the_trial(config, manager, capsys):
    manager.refusals = 2  # the epochs; the end is told with patience
    run(dataclasses.replace(config, metrics="validation_accuracy", report_epochs=True))
    assert len(manager.received) == 1
    assert capsys.readouterr().out.count("this epoch is missing in Katib's chart") == 2


SHORT = "import sys; print('start'); print('accuracy = 0.75, leaves=12'); print('loss=nan'); sys.exit(int(sys.argv[1]))"


def test_a_command_s_output_is_relayed(manager, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(failure, "TERMINATION_LOG", tmp_path / "none")
    command = [sys.executable, "-c", SHORT]
    assert relay.main(["--metrics=accuracy,leaves,loss", "--", *command, "0"]) == 0
    told = [
        (log.metric.name, log.metric.value) for each in manager.received for log in each.observation_log.metric_logs
    ]
    assert told == [("accuracy", "0.75"), ("leaves", "12")]
    assert capsys.readouterr().out.splitlines() == ["start", "accuracy = 0.75, leaves=12", "loss=nan"]
    assert relay.main(["--metrics=accuracy", "--", *command, "3"]) == 3
    assert "error: loss=nan" in capsys.readouterr().err  # its last line says why, as far as anything does
    assert relay.main(["--metrics=loss,f1", "--", *command, "0"]) == 1  # Katib would wait for it, and say nothing
    assert "must print a finite value of one of loss, f1" in capsys.readouterr().err
    assert relay.main(["--metrics=accuracy", "--", str(tmp_path / "no-such-program")]) == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("accuracy=0.5", 0.5),
        ("epoch 3: accuracy = 5e-1 (best)", 0.5),
        ("accuracy=.5 accuracy=+0.75", 0.75),
        ("accuracy=nan", None),
        ("accuracy=0.5.1", None),
        ("accuracy=0x5", None),
        ("other_accuracy=0.5", None),
        ("accuracy=1e999", None),
        ("x" * 10**6 + " accuracy=0.5", 0.5),  # minutes, if each letter may begin a name
    ],
)
def test_metrics_in_a_line(line, found):
    assert relay.metrics_in(line, ["accuracy"]) == ({} if found is None else {"accuracy": found})


def test_a_dataset_in_a_store_is_fetched(config):
    direct = run(config)
    stored = run(dataclasses.replace(config, dataset_uri=f"file://{config.dataset_uri}", trial_name="stored"))
    assert stored["validation_loss"] == direct["validation_loss"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_never_reported(value):
    with pytest.raises(ArithmeticError, match="validation_loss must be finite"):
        report({"validation_accuracy": 0.9, "validation_loss": value})


class DatabaseManager:
    """Katib's database manager over loopback; refuses the first calls."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.received = refusals, []
        outer = self

        class Servicer(services.DBManagerServicer):
            def ReportObservationLog(self, request, context):  # noqa: N802 -- gRPC's name
                if outer.refusals:
                    outer.refusals -= 1
                    context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
                outer.received.append(request)
                return messages.ReportObservationLogReply()

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        services.add_DBManagerServicer_to_server(Servicer(), self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()


@pytest.mark.parametrize("refusals", [0, 2])
def test_metrics_are_pushed_to_katib(monkeypatch, refusals):
    manager = DatabaseManager(refusals)
    monkeypatch.setenv("KATIB_TRIAL_NAME", "bohb-b0r0c1")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", manager.address)
    try:
        report({"validation_accuracy": 0.9125, "size_bytes": 28008.0}, pauses_s=(0.01, 0.01))
    finally:
        manager.server.stop(None)
    (request,) = manager.received
    assert request.trial_name == "bohb-b0r0c1"
    pushed = {log.metric.name: log.metric.value for log in request.observation_log.metric_logs}
    assert pushed == {"validation_accuracy": "0.9125", "size_bytes": "28008"}


def test_an_unreachable_database_manager_fails_with_its_address(monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "t")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConnectionError, match="Katib's database manager at 127.0.0.1:1 did not accept the metrics"):
        report({"validation_accuracy": 0.9}, pauses_s=(0.0,))


def test_bad_hyperparameters_and_addresses_are_refused_before_any_work(config, tmp_path):
    with pytest.raises(ValueError, match="^train: schedule must be one of"):
        changed(config, {"train.schedule": "linear"})
    with pytest.raises(
        ValueError,
        match=r"^unknown parameter 'train\.speed' of TrialConfig; the parameters are",
    ):
        changed(config, {"train.speed": 3})
    with pytest.raises(ValueError, match="dataset_uri must name a Dataset artifact"):
        dataclasses.replace(config, dataset_uri="")
    with pytest.raises(ValueError, match="store_uri needs a trial_name"):
        dataclasses.replace(config, trial_name="")
    with pytest.raises(ValueError, match=r"must be an artifact with a file dataset.json"):
        run(dataclasses.replace(config, dataset_uri=str(tmp_path / "nowhere")))


def test_nodes_share_the_training_and_the_first_one_reports(config: TrialConfig, tmp_path) -> None:
    """Two containers' commands on this machine; the weights are compared with those of one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    config = changed(config, {"train.epochs": 1, "train.max_epochs": 1, "train.devices": 1})
    given = {"dataset-uri": config.dataset_uri, "store-uri": config.store_uri, "device": "cpu"}
    flags = {**given, **json.loads(config.settings), "trial-name": "nodes", "metrics": "size_bytes"}
    command = [sys.executable, "-m", "kondense.cli", "trial", *(f"--{name}={value}" for name, value in flags.items())]
    local = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": port}
    local |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    environments = [{**os.environ, **local, "PET_NODE_RANK": rank} for rank in ("0", "1")]
    nodes = [
        subprocess.Popen(command, env=each, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for each in environments
    ]
    outputs = [node.communicate(timeout=240)[0].decode() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert ["size_bytes=" in output for output in outputs] == [True, False]  # the first one measures and reports
    run(dataclasses.replace(config, trial_name="alone"))
    together, alone = (weights(dataclasses.replace(config, trial_name=name), tmp_path) for name in ("nodes", "alone"))
    for name, tensor in together.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-3, atol=1e-5)


def test_nodes_without_a_training_are_refused(config: TrialConfig, tmp_path, monkeypatch) -> None:
    run(config)
    teacher = f"{config.store_uri}/trials/t"
    for name, value in {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(f"PET_{name}", value)
    with pytest.raises(InputError, match=r"^a trial must train its network on several nodes, .* on 2; numNodes: 1"):
        run(dataclasses.replace(config, teacher_uri=teacher, recipe="train > prune:l1:0.5"))
    with pytest.raises(InputError, match=r"^train\.compile must be false on several nodes, but got true on 2\.$"):
        run(changed(config, {"train.compile": True}))
    with pytest.raises(InputError, match=r"^report_epochs must be false .* with 2 devices"):
        run(dataclasses.replace(config, report_epochs=True))


def test_a_command_may_print_what_is_no_text_and_lines_without_end(manager, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(failure, "TERMINATION_LOG", tmp_path / "none")
    monkeypatch.setattr(relay, "LONGEST_LINE", 1_000)
    program = "import os; os.write(1, b'\\xff accuracy=0.5\\n' + b'x' * 10_000 + b' accuracy=0.75')"
    assert relay.main(["--metrics=accuracy", "--", sys.executable, "-c", program]) == 0
    told = [log.metric.value for each in manager.received for log in each.observation_log.metric_logs]
    assert told == ["0.5", "0.75"]
    assert capsys.readouterr().out == "\ufffd accuracy=0.5\n" + "x" * 10_000 + " accuracy=0.75"
