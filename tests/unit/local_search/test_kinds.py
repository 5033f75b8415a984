"""Trials of other kinds and with other collectors, early stopping, and what replaces an image's paths and command."""

import io
import json
import struct
from pathlib import Path

import pytest
from kondense.errors import InputError
from kondense.katib.event_files import read_scalars
from kondense.katib.spec import ExperimentError
from kondense.katib.template import LocalChanges
from kondense.search.run import Outcome
from kondense_pipelines.cli.app import app
from kondense_pipelines.local_search.changes import read_changes
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.reports import MOST_REPORTS, shortened
from kondense_pipelines.local_search.runner import run
from rich.console import Console
from typer.testing import CliRunner

from tests.support.event_records import event, field
from tests.support.experiment_example import container, experiment, scripted, write


def start(document, tmp_path, **options):
    display = Display(Console(file=io.StringIO()))
    result = run(write(document, tmp_path), tmp_path / "out", display=display, **options)
    return result, json.loads((tmp_path / "out" / "results.json").read_text())["trials"]


def few(document, trials=1):
    document["spec"].update(maxTrialCount=trials, parallelTrialCount=1, maxFailedTrialCount=1)
    return document


def trainer(document):
    """Return the container's command, arguments and variables, out of the Job."""
    return {key: value for key, value in container(document).items() if key != "resources"}


def pytorch_job(script, workers=1):
    document = few(scripted(script))
    template = {"spec": {"containers": [trainer(document)]}}
    roles = {"Master": {"replicas": 1, "template": template}, "Worker": {"replicas": workers, "template": template}}
    spec = {"nprocPerNode": "1", "pytorchReplicaSpecs": roles}
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": spec}
    document["spec"]["trialTemplate"]["trialSpec"] = job
    return document


RANKS = (
    'echo "$RANK $WORLD_SIZE $MASTER_ADDR $PET_NODE_RANK/$PET_NNODES";'
    '[ "$MASTER_PORT" = "$PET_MASTER_PORT" ] && echo loss=0.$RANK'
)


def test_a_pytorchjob_is_a_process_per_replica_and_the_masters_metrics_count(tmp_path):
    _, (trial,) = start(pytorch_job(RANKS, workers=2), tmp_path)
    assert (trial["status"], trial["value"]) == ("succeeded", 0.0)
    folder = tmp_path / "out" / "trials" / trial["name"]
    assert (folder / "output.log").read_text().splitlines()[0] == "0 3 127.0.0.1 0/3"


def test_a_workers_failure_is_the_trials(tmp_path):
    script = 'if [ "$RANK" = 1 ]; then exit 7; else exec sleep 60; fi'
    _, (trial,) = start(pytorch_job(script), tmp_path)
    assert (trial["status"], trial["reason"]) == ("failed", "replica 1: exit status 7; see output-1.log")


def test_a_trainjob_has_nodes_with_torchruns_variables(tmp_path):
    script = (
        'echo "$PET_NODE_RANK/$PET_NNODES x $PET_NPROC_PER_NODE"; echo loss=0.5; [ "$PET_NODE_RANK" = 0 ] || touch up'
    )
    document = few(scripted(f"{script}; until [ -e up ]; do sleep 0.02; done"))
    node = {**trainer(document), "numNodes": 2, "numProcPerNode": 4}
    node.pop("name")
    job = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}
    job["spec"] = {"runtimeRef": {"name": "torch-distributed"}, "trainer": node}
    document["spec"]["trialTemplate"] |= {"trialSpec": job, "primaryContainerName": "node"}
    _, (trial,) = start(document, tmp_path)
    logs = sorted((tmp_path / "out" / "trials" / trial["name"]).glob("output*.log"))
    assert [log.read_text().splitlines()[0] for log in logs] == ["1/2 x 4", "0/2 x 4"]


def collector(document, name, **path):
    document["spec"]["metricsCollectorSpec"] = {"collector": {"kind": name}}
    if path:
        document["spec"]["metricsCollectorSpec"]["source"] = {"fileSystemPath": path}
    return document


def test_without_a_collector_the_output_counts(tmp_path):
    _, (trial,) = start(collector(few(scripted("echo loss=0.25")), "None"), tmp_path)
    assert trial["value"] == 0.25


def fixed_file(tmp_path, trials):
    path = tmp_path / "container" / "metrics.log"
    document = few(scripted('echo "loss=$LR" >> "$(cat where)"'), trials)
    container(document)["args"] = ['read -r FILE < where; echo "loss=$LR" >> "$FILE"']
    (tmp_path / "where").write_text(f"{path}\n")
    document["spec"]["parallelTrialCount"] = min(2, trials)
    return collector(document, "File", path=str(path), kind="File"), path


def test_a_file_at_a_fixed_path_is_moved_and_trials_run_one_at_a_time(tmp_path, caplog):
    document, path = fixed_file(tmp_path, 3)
    _, trials = start(document, tmp_path)
    assert [trial["value"] for trial in trials] == [float(trial["assignments"]["lr"]) for trial in trials]
    assert not path.exists()
    assert (tmp_path / "out" / "trials" / trials[0]["name"] / "metrics.log").is_file()
    assert "trials run one at a time" in caplog.text


def test_a_file_that_is_there_before_is_not_touched(tmp_path):
    document, path = fixed_file(tmp_path, 1)
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(InputError, match="must not exist before the run: move it"):
        start(document, tmp_path)
    assert path.read_text() == "mine"


def test_event_files(tmp_path):
    records = [event(2.0, "loss", 0.25), event(1.0, "loss", 0.5, tensor=True), event(3.0, "loss_regularization", 9.0)]
    source = tmp_path / "source"
    source.write_bytes(b"".join(records) + event(4.0, "loss", 0.1)[:-9])  # the last one is incomplete
    assert [(tag, value) for _, tag, value in read_scalars(source)] == [
        ("loss", "0.25"),
        ("loss", "0.5"),
        ("loss_regularization", "9.0"),
    ]
    document = collector(few(scripted("")), "TensorFlowEvent", path="/tb", kind="Directory")
    container(document)["args"] = [f"mkdir -p /tb/run; cp {source} /tb/run/events.out.tfevents.1"]
    document["spec"]["objective"]["metricStrategies"] = [{"name": "loss", "value": "latest"}]
    _, (trial,) = start(document, tmp_path)
    assert (trial["value"], trial["curve"]) == (0.25, [0.5, 0.25])


@pytest.mark.parametrize(
    "message",
    [
        field(1, 0, b"\1") + field(5, 0, b"\1"),
        field(5, 2, field(1, 0, b"\1") + field(1, 5, b"abcd")),
        field(5, 2, field(1, 2, field(1, 0, b"\1") + field(2, 5, struct.pack("<f", 0.1)))),
        field(5, 2, field(1, 2, field(1, 2, b"loss") + field(2, 0, b"\1") + field(8, 0, b"\1"))),
        field(5, 2, field(1, 2, field(1, 2, b"loss") + field(8, 2, field(1, 2, b"x") + field(4, 2, b"abcd")))),
        b"\xff" * 64,
    ],
)
def test_a_field_of_an_event_that_is_encoded_otherwise_is_none(tmp_path, message):
    source = tmp_path / "source"
    source.write_bytes(struct.pack("<Q", len(message)) + b"\0" * 4 + message + b"\0" * 4 + event(1.0, "loss", 0.5))
    assert [(tag, value) for _, tag, value in read_scalars(source)] == [("loss", "0.5")]


@pytest.mark.parametrize("time", [float("nan"), 1e300, -1e300])
def test_an_event_at_a_time_that_does_not_exist_still_counts(tmp_path, time):
    (tmp_path / "source").write_bytes(event(time, "loss", 0.5))
    ((_, tag, value),) = read_scalars(tmp_path / "source")
    assert (tag, value) == ("loss", "0.5")


MEDIAN = {
    "algorithmName": "medianstop",
    "algorithmSettings": [{"name": "min_trials_required", "value": "3"}, {"name": "start_step", "value": "2"}],
}


def test_a_trial_worse_than_the_median_is_stopped_and_its_curve_stays(tmp_path):
    """The second trial diverges: the mean of all is above 300, and would stop none. First reports of many decide."""
    script = """case "$NAME" in
        *c1-*) echo loss=900; echo loss=900;;
        *c3-*) echo loss=0.9; echo loss=0.8; exec sleep 60.73;;
        *) echo loss=0.5; echo loss=0.4; yes loss=7 | head -n 1200;; esac"""
    document = few(scripted(script, earlyStopping=MEDIAN), 4)
    result, trials = start(document, tmp_path)
    assert result.outcome is Outcome.SUCCEEDED
    stopped = trials[3]
    assert (stopped["status"], stopped["value"], stopped["curve"]) == ("early_stopped", 0.8, [0.9, 0.8])
    assert stopped["reason"] == "worse than the median 0.45 after 2 reports"
    assert [trial["status"] for trial in trials[:3]] == ["succeeded"] * 3
    assert trials[0]["curve"] == [0.5, 0.4, *[7.0] * (MOST_REPORTS - 2)]


CURVE = {
    "algorithmName": "curvestop",
    "algorithmSettings": [{"name": "min_trials_required", "value": "4"}, {"name": "start_step", "value": "2"}],
}


def test_promoted_trials_that_will_not_be_the_best_are_stopped(tmp_path):
    """Losses fall by as much in all trials, so that after two reports their order is certain."""
    script = "echo loss=6$LR; echo loss=5$LR; [ $UNITS != 9 ] || sleep 0.4; echo loss=2$LR"  # 50 + lr, 20 + lr
    document = scripted(script, parallelTrialCount=3, maxTrialCount=60, maxFailedTrialCount=1, earlyStopping=CURVE)
    settings = [{"name": "resource_name", "value": "units"}]
    document["spec"]["algorithm"] = {"algorithmName": "hyperband", "algorithmSettings": settings}
    document["spec"]["parameters"][1]["feasibleSpace"]["max"] = "9"
    _, trials = start(document, tmp_path)
    promoted = [trial for trial in trials if trial["assignments"]["units"] == "9" and trial["rung"] > 0]
    stopped = [trial for trial in trials if trial["status"] == "early_stopped"]
    assert len(promoted) > 4 and stopped and all(trial in promoted for trial in stopped)
    assert all("chance to become the best is below 0.05, after 2 reports" in trial["reason"] for trial in stopped)
    for trial in stopped:
        before = [each["value"] for each in promoted[: promoted.index(trial)] if each["status"] == "succeeded"]
        assert len(before) >= 4 and trial["value"] - 30 > min(before)


def test_a_long_curve_keeps_its_first_and_last_reports():
    curve = [float(number) for number in range(MOST_REPORTS + 5)]
    assert shortened(curve[:-5], 3) == curve[:-5]
    assert shortened(curve) == curve[5:]
    assert shortened(curve, 3) == curve[:3] + curve[8:]
    assert shortened(curve, MOST_REPORTS + 2) == curve[:-3] + curve[-1:]


def test_maps_and_command(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.sh").write_text('echo "loss=0.125"; pwd; echo $1 $DATA')
    document = few(experiment())
    del container(document)["command"]
    container(document)["args"] = [
        "/opt/app/train.sh",
        "/opt/application",
        "${trialParameters.learningRate} ${trialParameters.units} ${trialParameters.kind} ${trialParameters.name}",
    ]
    container(document)["workingDir"] = "/opt/app"
    container(document)["env"] = [{"name": "DATA", "value": "/opt/app/data"}]
    with pytest.raises(ExperimentError, match="must have a command: .*--command gives one"):
        start(document, tmp_path)
    changes = read_changes([f"/opt/app={tmp_path / 'code'}"], "sh -e")
    _, (trial,) = start(document, tmp_path, changes=changes)
    assert trial["value"] == 0.125
    log = (tmp_path / "out" / "trials" / trial["name"] / "output.log").read_text().splitlines()
    assert log[1:] == [str(tmp_path / "code"), f"/opt/application {tmp_path}/code/data"]


@pytest.mark.parametrize(
    ("maps", "command", "rule"),
    [
        (["/opt"], "", "must be IMAGE-PATH=LOCAL-PATH"),
        (["opt=."], "", "with an absolute IMAGE-PATH"),
        (["/opt=.", "/opt/=x"], "", "names /opt/ twice"),
        (["/opt=/no/such/place"], "", "a directory that exists"),
        ([], "sh 'x", "must be words as in a shell"),
    ],
)
def test_wrong_options(maps, command, rule):
    with pytest.raises(InputError, match=rule):
        read_changes(maps, command)


def test_a_longer_path_is_mapped_first():
    changes = read_changes(["/opt=/tmp", "/opt/app=/usr"], "")
    assert changes.mapped("/opt/app/x:/opt/y --path=/opt") == "/usr/x:/tmp/y --path=/tmp"
    assert LocalChanges({"/opt": str(Path("/tmp"))}).mapped("/my/opt/x /options") == "/my/opt/x /options"


def test_a_population_continues_the_files_of_its_parents(tmp_path):
    script = 'cat /opt/files/state; echo "$NAME" >> /opt/files/state; echo "loss=$LR"'
    document = few(scripted(script), 12)
    values = {"suggestion_trial_dir": "/opt/files", "n_population": "5", "truncation_threshold": "0.4"}
    settings = [{"name": name, "value": value} for name, value in values.items()]
    document["spec"]["algorithm"] = {"algorithmName": "pbt", "algorithmSettings": settings}
    _, trials = start(document, tmp_path)
    parents = {trial["name"]: trial["parent"] for trial in trials}
    assert [parents[trial["name"]] for trial in trials[:5]] == [None] * 5
    for trial in trials[5:]:
        seen = (tmp_path / "out" / "files" / trial["name"] / "state").read_text().splitlines()
        assert seen[-2:] == [parents[trial["name"]], trial["name"]]
        assert len(seen) == trial["bracket"] + 1
    by_name = {trial["name"]: trial for trial in trials}
    second = [trial for trial in trials if trial["bracket"] == 1]
    ranked = sorted((trial["value"], trial["name"]) for trial in trials[:5])
    copies = [each for each in second if by_name[each["parent"]]["assignments"] == each["assignments"]]
    assert copies and {each["parent"] for each in copies} <= {name for _, name in ranked[:3]}
    assert not {each["parent"] for each in second} & {name for _, name in ranked[3:]}


def test_the_command_lists_what_is_wrong_line_by_line(tmp_path):
    document = experiment()
    document["spec"]["parameters"][2]["feasibleSpace"]["list"] = ['a"b', "c"]
    del container(document)["command"]
    result = CliRunner().invoke(app, ["search", str(write(document, tmp_path)), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2
    first, *told = result.stderr.splitlines()
    assert first.endswith("cannot run here for 2 reason(s):")
    assert [line.startswith("  - line ") for line in told] == [True, True]
