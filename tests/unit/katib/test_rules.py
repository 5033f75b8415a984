"""Every rule of Katib's webhook broken once, and what a local run cannot do."""

import pytest
from kondense.katib import controller_rules, search_rules
from kondense.katib.spec import ExperimentError, load, parse
from kondense_pipelines.local_search import local_rules

from tests.support.experiment_example import container, experiment, write


def put(path: str, value):
    """Return a change that sets (or, for `...`, removes) the field at a dotted path."""

    def change(document):
        *parents, last = path.split(".")
        for key in parents:
            document = document[int(key)] if key.isdigit() else document.setdefault(key, {})
        key = int(last) if last.isdigit() else last
        if value is ...:
            del document[key]
        else:
            document[key] = value

    return change


def change_all(*changes):
    """Return a change that makes several."""

    def change(document):
        for each in changes:
            each(document)

    return change


def parameter(**fields):
    """Return a change that puts `fields` into the first parameter's feasible space."""

    def change(document):
        document["spec"]["parameters"][0]["feasibleSpace"].update(fields)

    return change


COLLECTOR = "spec.metricsCollectorSpec"
TEMPLATE = "spec.trialTemplate"
JOB = f"{TEMPLATE}.trialSpec"
CONTAINER = f"{JOB}.spec.template.spec.containers.0"
FILE = {"collector": {"kind": "File"}, "source": {"fileSystemPath": {"path": "/m.log", "kind": "File"}}}


def stopping(**settings):
    entries = [{"name": name, "value": value} for name, value in settings.items()]
    return {"algorithmName": "medianstop", "algorithmSettings": entries}


def collector(kind: str, **source):
    return put(COLLECTOR, {"collector": {"kind": kind}, "source": source})


BROKEN = {
    "apiVersion": (put("apiVersion", "v1"), "apiVersion: must be kubeflow.org/v1beta1, but got 'v1'"),
    "kind": (put("kind", "Job"), "kind: must be Experiment"),
    "name pattern": (put("metadata.name", "Upper_Case"), "metadata.name: must be lower-case letters"),
    "name end": (put("metadata.name", "ends-with-"), "start with a letter, end with a letter or digit"),
    "name length": (put("metadata.name", "a" * 41), "must have at most 40 characters"),
    "name missing": (put("metadata.name", ...), "metadata.name"),
    "failed below 0": (put("spec.maxFailedTrialCount", -1), "spec.maxFailedTrialCount: must be at least 0, but got -1"),
    "max 0": (put("spec.maxTrialCount", 0), "spec.maxTrialCount: must be greater than 0, but got 0"),
    "parallel 0": (put("spec.parallelTrialCount", 0), "spec.parallelTrialCount: must be greater than 0, but got 0"),
    "failed above max": (put("spec.maxFailedTrialCount", 7), "must be at most spec.maxTrialCount=6, but got 7"),
    "parallel above max": (put("spec.parallelTrialCount", 9), "must be at most spec.maxTrialCount=6, but got 9"),
    "no objective": (put("spec.objective", ...), "spec.objective: must be specified"),
    "objective type": (put("spec.objective.type", "best"), "must be minimize or maximize, but got 'best'"),
    "no metric": (put("spec.objective.objectiveMetricName", ...), "objectiveMetricName: must be specified"),
    "metric twice": (
        put("spec.objective.additionalMetricNames", ["loss"]),
        "must not contain spec.objective.objectiveMetricName",
    ),
    "strategy": (
        put("spec.objective.metricStrategies", [{"name": "loss", "value": "mean"}]),
        "must be one of min, max, latest, but got 'mean'",
    ),
    "no algorithm": (put("spec.algorithm", ...), "spec.algorithm: must be specified"),
    "unknown algorithm": (
        put("spec.algorithm.algorithmName", "hype"),
        "must be one of bayesianoptimization, bohb, cmaes, grid",
    ),
    "early stopping": (
        put("spec.earlyStopping", {"algorithmName": "x"}),
        "must be one of medianstop, curvestop, but got 'x'",
    ),
    "resume policy": (put("spec.resumePolicy", "Always"), "must be one of Never, LongRunning, FromVolume"),
    "no parameters": (put("spec.parameters", []), "spec.parameters or spec.nasConfig must be specified"),
    "parameters and nas": (
        put("spec.nasConfig", {"graphConfig": {}}),
        "only one of spec.parameters and spec.nasConfig",
    ),
    "nas": (
        lambda document: [put("spec.nasConfig", {})(document), put("spec.parameters", ...)(document)],
        "spec.nasConfig: is not offered here: Katib's search of architectures",
    ),
    "parameter type": (put("spec.parameters.0.parameterType", "float"), "must be one of int, double, categorical"),
    "parameter name twice": (put("spec.parameters.1.name", "lr"), "must be unique among spec.parameters"),
    "distribution": (parameter(distribution="beta"), "must be one of uniform, logUniform, normal, logNormal"),
    "no feasible space": (put("spec.parameters.0.feasibleSpace", ...), "feasibleSpace: must be specified"),
    "double with list": (parameter(list=["1"]), "list: must be absent for parameterType double"),
    "double without max": (put("spec.parameters.0.feasibleSpace.max", ...), "max: must be specified"),
    "int without min": (put("spec.parameters.1.feasibleSpace.min", ...), "min: must be specified"),
    "categorical with step": (put("spec.parameters.2.feasibleSpace.step", "1"), "step: must be absent"),
    "categorical with min": (put("spec.parameters.2.feasibleSpace.min", "1"), "min: must be absent"),
    "no template": (put(TEMPLATE, ...), "spec.trialTemplate: must be specified"),
    "no primary container": (put(f"{TEMPLATE}.primaryContainerName", ...), "primaryContainerName: must be specified"),
    "no condition": (put(f"{JOB}.kind", "Workflow"), "successCondition: must be specified"),
    "no trial parameters": (put(f"{TEMPLATE}.trialParameters", ...), "trialParameters: must be specified"),
    "no source": (put(JOB, ...), "trialSpec or configMap must be specified"),
    "two sources": (
        put(f"{TEMPLATE}.configMap", {"configMapName": "a", "configMapNamespace": "b", "templatePath": "c"}),
        "only one of trialSpec and configMap",
    ),
    "half a configMap": (put(f"{TEMPLATE}.configMap", {"configMapName": "a"}), "configMap.templatePath: must be"),
    "trial parameter without reference": (
        put(f"{TEMPLATE}.trialParameters.0.reference", ...),
        "name and reference must be specified",
    ),
    "braces": (put(f"{TEMPLATE}.trialParameters.0.name", "l{r}"), "must not contain braces"),
    "trial parameter name twice": (put(f"{TEMPLATE}.trialParameters.1.name", "learningRate"), "must be unique"),
    "reference twice": (put(f"{TEMPLATE}.trialParameters.1.reference", "lr"), "must be unique among trialParameters"),
    "reference unknown": (put(f"{TEMPLATE}.trialParameters.0.reference", "rate"), "must be one of spec.parameters"),
    "meta key unknown": (
        put(f"{TEMPLATE}.trialParameters.3.reference", "${trialSpec.Spec}"),
        "must be one of spec.parameters or a ${trialSpec.*} key",
    ),
    "placeholder unused": (put(f"{CONTAINER}.args", ["echo"]), "must be used in the template as ${trialParameters.lea"),
    "placeholder left over": (put(f"{CONTAINER}.command", ["${trialParameters.other}"]), "but got 'other'"),
    "placeholders without an end": (  # hours, if each is looked for to the end of the text
        put(f"{CONTAINER}.args", ["${trialParameters." * 10**5]),
        "must be used in the template as ${trialParameters.lea",
    ),
    "name in template": (put(f"{JOB}.metadata", {"name": "x"}), "metadata.name: must be absent: Katib sets it"),
    "namespace in template": (put(f"{JOB}.metadata", {"namespace": "x"}), "metadata.namespace: must be absent"),
    "template without apiVersion": (put(f"{JOB}.apiVersion", ...), "trialSpec.apiVersion: must be specified"),
    "template without kind": (put(f"{JOB}.kind", ...), "trialSpec.kind: must be specified"),
    "unknown Job field": (put(f"{JOB}.spec.retries", 3), "spec.retries: unknown field of a Job"),
    "unknown container field": (put(f"{CONTAINER}.cmd", ["x"]), "containers[0].cmd: unknown field of a Job"),
    "Job field of a wrong type": (
        put(f"{JOB}.spec.backoffLimit", "0"),
        "must be an integer of 32 bits in a Job, but got '0'",
    ),
    "Job list of a wrong type": (put(f"{CONTAINER}.command", "python3"), "must be a list in a Job"),
    "Job object of a wrong type": (put(f"{CONTAINER}.resources", "large"), "must be an object in a Job"),
    "collector kind": (collector("Log"), "must be one of StdOut, Push, File"),
    "file path": (collector("File", fileSystemPath={"path": "m.log"}), "with an absolute path"),
    "file kind": (collector("File", fileSystemPath={"kind": "Directory", "path": "/m"}), "must be of kind File"),
    "file format": (collector("File", fileSystemPath={"path": "/m", "format": "CSV"}), "must be TEXT or JSON"),
    "json with filter": (
        collector("File", fileSystemPath={"path": "/m", "format": "JSON"}, filter={"metricsFormat": ["(a)=(b)"]}),
        "must be absent when the file's format is JSON",
    ),
    "events path": (collector("TensorFlowEvent", fileSystemPath={"path": "logs"}), "must be of kind Directory"),
    "events format": (collector("TensorFlowEvent", fileSystemPath={"format": "TEXT"}), "format: must be empty"),
    "prometheus port": (collector("PrometheusMetric", httpGet={"port": "http"}), "port: must be a positive integer"),
    "prometheus port 0": (collector("PrometheusMetric", httpGet={"port": 0}), "port: must be a positive integer"),
    "prometheus port below 0": (
        collector("PrometheusMetric", httpGet={"port": -1}),
        "port: must be a positive integer",
    ),
    "prometheus port of many digits": (
        collector("PrometheusMetric", httpGet={"port": "9" * 5000}),
        "a positive integer",
    ),
    "prometheus port in other digits": (collector("PrometheusMetric", httpGet={"port": "²"}), "a positive integer"),
    "parallel below 0": (put("spec.parallelTrialCount", -1), "parallelTrialCount: must be greater than 0"),
    "most below 0": (put("spec.maxTrialCount", -1), "maxTrialCount: must be greater than 0"),
    "events kind": (
        collector("TensorFlowEvent", fileSystemPath={"kind": "File", "path": "/m"}),
        "must be of kind Directory",
    ),
    "events kind of another word": (
        collector("TensorFlowEvent", fileSystemPath={"kind": "Folder", "path": "/m"}),
        "must be of kind Directory",
    ),
    "reference of brackets": (
        put(f"{TEMPLATE}.trialParameters.3.reference", "${trialSpec." + "[" * 200_000 + "}"),
        "must be one of spec.parameters or a ${trialSpec.*} key",
    ),
    "reference without an end": (
        put(f"{TEMPLATE}.trialParameters.3.reference", "${trialSpec." * 50_000),
        "must be one of spec.parameters or a ${trialSpec.*} key",
    ),
    "reference with two brackets": (
        put(f"{TEMPLATE}.trialParameters.3.reference", "${trialSpec.Labels[a[b]]}"),
        "must be one of spec.parameters or a ${trialSpec.*} key",
    ),
    **{
        f"name with {character!a}": (
            change_all(
                put(f"{TEMPLATE}.trialParameters.0.name", f"a{character}b"),
                put(f"{CONTAINER}.args", [f"--lr=${{trialParameters.a{character}b}}"]),
            ),
            "must be used in the template as",
        )
        for character in '<>&\u2028\u2029"\\'  # Go's JSON escapes these
    },
    "prometheus path": (collector("PrometheusMetric", httpGet={"path": "metrics"}), "must start with '/'"),
    "custom container": (collector("Custom"), "customCollector: must be specified"),
    "custom path": (
        put(
            COLLECTOR,
            {
                "collector": {"kind": "Custom", "customCollector": {"name": "c"}},
                "source": {"fileSystemPath": {"path": "x", "kind": "File"}},
            },
        ),
        "must be of kind File or Directory with an absolute path",
    ),
    "filter expression": (collector("StdOut", filter={"metricsFormat": ["("]}), "must be a regular expression"),
    "filter of Python": (
        collector("StdOut", filter={"metricsFormat": [r"(a)(?=b)(c)"]}),
        "must be a regular expression of",
    ),
    "filter group again": (collector("StdOut", filter={"metricsFormat": [r"(a)(b)\1"]}), "invalid escape sequence"),
    "filter byte": (collector("StdOut", filter={"metricsFormat": [r"(a)(\C)"]}), r"\C is not in Go"),
    "filter groups": (collector("StdOut", filter={"metricsFormat": ["(a)=b"]}), "must have two groups"),
    # What the definition itself refuses.
    "unquoted number": (parameter(min=0.1), "min: must be a string (quote it), but got 0.1"),
    "misspelt field": (
        put("spec.maxTrials", 3),
        "spec.maxTrials: unknown field; the known fields are objective",
    ),
    "count as text": (put("spec.maxTrialCount", "six"), "spec.maxTrialCount: must be an integer, but got 'six'"),
    "count as truth": (put("spec.maxTrialCount", True), "must be an integer, but got True"),
    "spec as list": (put("spec.parameters", {"lr": 1}), "spec.parameters: must be a list"),
    # What the suggestion service would refuse when the Experiment starts.
    "min above max": (parameter(min="2"), "parameter 'lr': min must not be above max, but got min=2, max=0.9"),
    "step 0": (parameter(step="0"), "parameter 'lr': step must be above 0, but got 0"),
    "categorical twice": (put("spec.parameters.2.feasibleSpace.list", ["a", "a"]), "'a' occurs twice"),
    "unknown setting": (
        put("spec.algorithm.algorithmSettings", [{"name": "seed", "value": "1"}]),
        "unknown setting 'seed'; the settings are conditions, constraints, objectives, random_state",
    ),
    "infinite grid": (put("spec.algorithm", {"algorithmName": "grid"}), "grid needs a step for a double parameter"),
    "no resource": (put("spec.algorithm", {"algorithmName": "bohb"}), "setting resource_name must name"),
}


def message(document) -> str:
    with pytest.raises(ExperimentError) as error:
        parse(document)
    return str(error.value)


def test_the_example_keeps_every_rule():
    parsed = parse(experiment())
    assert local_rules.broken(parsed.document) == []
    assert parsed.objective.strategies == {"loss": "min", "accuracy": "min"}


def test_what_katib_takes_and_is_not_offered_is_not_called_a_broken_rule():
    document = experiment()
    put("spec.nasConfig", {})(document)
    put("spec.parameters", ...)(document)
    put("spec.algorithm", {"algorithmName": "enas"})(document)
    assert message(document).startswith("the Experiment cannot run here for 2 reason(s):")
    put("spec.resumePolicy", "Always")(document)
    assert message(document).startswith("the Experiment breaks 3 rule(s) of a Katib Experiment:")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_told_with_its_value(case):
    change, expected = BROKEN[case]
    document = experiment()
    change(document)
    assert expected in message(document)


FIRST = "spec.parameters.0.feasibleSpace"


def test_a_placeholder_has_a_name_of_at_least_one_character():
    """As Katib's expression says: what seems to end an empty name is the first character of one."""
    document = experiment()
    put(f"{CONTAINER}.command", ["${trialParameters.}x}", "${trialParameters.other}", "$trialParameters.no"])(document)
    with pytest.raises(ExperimentError) as caught:
        parse(document)
    left = [line for line in str(caught.value).splitlines() if "must be one of trialParameters" in line]
    assert [line.rpartition("but got ")[2] for line in left] == ["'other'.", "'}x'."]


def test_a_declared_parameter_that_is_not_used_is_told_once():
    document = experiment()
    container(document)["args"] = [text for text in container(document)["args"] if "learningRate" not in text]
    with pytest.raises(ExperimentError) as caught:
        parse(document)
    assert sum("learningRate" in line for line in str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        put("spec.parameters.1.name", "lr"),
        put("spec.parameters.0.name", ""),
        put("spec.parameters.0.parameterType", "float"),
        put(FIRST, {"min": "0.1"}),
        put(FIRST, {"max": "0.1"}),
        put(FIRST, {"min": "0.1", "max": "0.2", "list": ["1"]}),
        put("spec.parameters.2.feasibleSpace", {"list": ["a"], "min": "1"}),
        put("spec.parameters", []),
        put("spec.algorithm.algorithmName", "darts"),
    ],
)
def test_the_services_rules_repeat_none_of_the_webhooks(change):
    document = experiment()
    change(document)
    assert list(search_rules.broken(document)) == []
    assert message(document)


def test_the_services_rules_are_told_of_each_parameter():
    document = experiment()
    for number in (0, 1):
        put(f"spec.parameters.{number}.feasibleSpace", {"min": "2", "max": "1"})(document)
    assert [each.path for each in search_rules.broken(document)] == ["spec.parameters[0]", "spec.parameters[1]"]


def test_all_errors_are_told_at_once():
    document = experiment()
    cases = [
        "name pattern",
        "max 0",
        "objective type",
        "distribution",
        "unknown Job field",
        "unquoted number",
        "braces",
    ]
    for case in cases:
        BROKEN[case][0](document)
    text = message(document)
    assert all(BROKEN[case][1] in text for case in cases)


def test_a_field_of_a_wrong_type_is_told_once():
    document = experiment()
    BROKEN["unquoted number"][0](document)
    assert message(document).count("feasibleSpace.min") == 1


def test_device_resources_may_have_any_name():
    document = experiment()
    container(document)["resources"] = {"limits": {"example.com/tpu": 1}, "requests": {"memory": "1Gi"}}
    parse(document)


@pytest.mark.parametrize(
    "reference", ["Name", "Namespace", "Kind", "APIVersion", "Labels[team]", "Annotations[a]", "Name[a]"]
)
def test_metadata_of_the_trial_may_be_referenced(reference):
    document = experiment()
    put(f"{TEMPLATE}.trialParameters.3.reference", f"${{trialSpec.{reference}}}")(document)
    parse(document)


@pytest.mark.parametrize(
    "change",
    [
        put("spec.parallelTrialCount", 1),
        put("spec.maxTrialCount", 2),
        put("spec.maxFailedTrialCount", 0),
        collector("PrometheusMetric", httpGet={"port": 1}),
        collector("PrometheusMetric", httpGet={"port": "0080", "path": "/m"}),
        collector("File", fileSystemPath={"path": "/m", "format": "TEXT"}, filter={"metricsFormat": ["(a)=(b)"]}),
        collector("File", fileSystemPath={"path": "/m", "format": "JSON"}),
        collector("TensorFlowEvent", fileSystemPath={"path": "/m"}),
        collector("StdOut", filter={"metricsFormat": ["(a)=(b)", "(a)(b)(c)"]}),
        put(COLLECTOR, {"collector": {"kind": "Custom", "customCollector": {"name": "c"}}}),
    ],
)
def test_what_the_webhook_takes_breaks_no_rule(change):
    document = experiment()
    document["spec"].pop("maxFailedTrialCount")
    change(document)
    parse(document)


@pytest.mark.parametrize("document", [{}, {"spec": 3}, {"metadata": None, "spec": None}])
def test_an_empty_document_is_a_clear_error(document):
    assert "spec.objective: must be specified" in message(document)


@pytest.mark.parametrize("document", [None, [], "text"])
def test_no_document_at_all_is_a_clear_error(document):
    assert "must be a mapping with metadata and spec, but got" in message(document)


def test_a_file_that_is_no_yaml(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("a: [1")
    with pytest.raises(ExperimentError, match="must be YAML"):
        load(path)


def test_a_file_with_two_documents(tmp_path):
    path = write(experiment(), tmp_path)
    path.write_text(path.read_text() + "---\n" + path.read_text())
    with pytest.raises(ExperimentError, match=f"{path.name}: must contain exactly one YAML document"):
        load(path)


@pytest.mark.parametrize("text", ["- a\n- b\n", "text\n"])
def test_a_document_that_is_no_mapping_breaks_one_rule(tmp_path, text):
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    with pytest.raises(ExperimentError, match="must be a mapping with metadata and spec") as caught:
        load(path)
    assert len(str(caught.value).strip().splitlines()) == 2  # the file and the rule


LATER = {
    "choice with a quotation mark": (
        put("spec.parameters.2.feasibleSpace.list", ['{"layers": 3}', "b"]),
        "must not hold a quotation mark",
    ),
    "choice with a backslash": (put("spec.parameters.2.feasibleSpace.list", ["a\\b", "b"]), "a backslash"),
    "choice with a line break": (put("spec.parameters.2.feasibleSpace.list", ["a\n", "b"]), "or a control character"),
    "label that is not there": (
        put(f"{TEMPLATE}.trialParameters.3.reference", "${trialSpec.Labels[team]}"),
        "must be one of the labels of trialSpec",
    ),
    "no label": (
        put(f"{TEMPLATE}.trialParameters.3.reference", "${trialSpec.Labels}"),
        "must be one of the labels of trialSpec",
    ),
    "annotation that is not there": (
        put(f"{TEMPLATE}.trialParameters.3.reference", "${trialSpec.Annotations[team]}"),
        "must be one of the annotations of trialSpec",
    ),
    "parameter not referenced": (
        put(f"{TEMPLATE}.trialParameters.0", {"name": "lr", "reference": "${trialSpec.Kind}"}),
        "trialParameters: must reference every one of spec.parameters",
    ),
}


@pytest.mark.parametrize("case", LATER)
def test_what_katib_takes_and_fails_on_later_is_no_broken_rule_and_refused_before_the_first_trial(case, tmp_path):
    change, expected = LATER[case]
    document = experiment()
    change(document)
    if case == "parameter not referenced":
        names = ("lr", "units", "kind", "name")
        container(document)["args"] = [" ".join(f"${{trialParameters.{name}}}" for name in names)]
    parsed = parse(document)
    assert any(expected in str(violation) for violation in controller_rules.broken(parsed.document))
    assert any(expected in str(violation) for violation in local_rules.broken(parsed.document))


def test_a_choice_in_another_script_is_taken():
    document = experiment()
    put("spec.parameters.2.feasibleSpace.list", ["größe", "大"])(document)
    assert controller_rules.broken(parse(document).document) == []


def test_violations_come_one_per_line_in_the_order_of_the_file_with_their_lines(tmp_path):
    path = tmp_path / "experiment.yaml"
    lines = write(experiment(), tmp_path).read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if "parallelTrialCount" in line)
    lines[number] = "  parallelTrialCount: 0"
    last = next(i for i, line in enumerate(lines) if "max: '64'" in line)
    lines[last] = lines[last].replace("'64'", "'0'")
    start = max(i for i, line in enumerate(lines[:last]) if line.startswith("  - "))
    path.write_text("\n".join(lines))
    with pytest.raises(ExperimentError) as error:
        load(path)
    first, *told = str(error.value).splitlines()
    assert first == f"{path} breaks 2 rule(s) of a Katib Experiment:"
    assert told[0] == f"  - line {number + 1}: spec.parallelTrialCount: must be greater than 0, but got 0."
    assert told[1].startswith(f"  - line {start + 1}: spec.parameters[1]: parameter 'units': min must not be above max")


def test_a_missing_field_has_the_line_of_the_object_around_it(tmp_path):
    document = experiment()
    del document["spec"]["objective"]["type"]
    path = write(document, tmp_path)
    number = path.read_text().splitlines().index("  objective:") + 1
    with pytest.raises(ExperimentError, match=f"line {number}: spec.objective.type: must be minimize or maximize"):
        load(path)


def test_an_algorithm_of_katib_that_is_not_here_is_said_to_be_that():
    document = experiment()
    document["spec"]["algorithm"] = {"algorithmName": "darts"}
    assert "is an algorithm of Katib that is not offered here; offered are" in message(document)


LOCALLY = {
    "early stopping of what pushes": (
        lambda document: [
            put("spec.earlyStopping", {"algorithmName": "medianstop"})(document),
            collector("Push")(document),
        ],
        "earlyStopping: needs the collector StdOut or File, as on a cluster, but got 'Push'",
    ),
    "early stopping with a wrong setting": (
        put("spec.earlyStopping", stopping(start_step="0")),
        "earlyStopping.algorithmSettings: setting start_step must be a whole number of at least 1, but got '0'",
    ),
    "early stopping with an unknown setting": (
        put("spec.earlyStopping", stopping(patience="3")),
        "unknown setting 'patience' of medianstop; the settings are min_trials_required, start_step",
    ),
    "endless": (put("spec.maxTrialCount", ...), "or it would never end"),
    "no such container": (put(f"{TEMPLATE}.primaryContainerName", "main"), "must be one of the Job's containers"),
    "no command": (put(f"{CONTAINER}.command", ...), "must have a command: that of its image is not known here"),
    "collector": (collector("PrometheusMetric"), "is not offered here: must be one of StdOut, Push, File, TensorFlow"),
    "parallel": (
        put("spec.parallelTrialCount", 1_001),
        "parallelTrialCount: must be at most 1,000 for a local run, but got 1001",
    ),
    "kind": (put(f"{JOB}.kind", "TFJob"), "is not offered here: must be Job, PyTorchJob or TrainJob for a local run"),
}


@pytest.mark.parametrize("case", LOCALLY)
def test_what_a_local_run_cannot_do(case):
    change, expected = LOCALLY[case]
    document = experiment()
    document["spec"].pop("maxFailedTrialCount")
    change(document)
    if document["spec"].get("maxTrialCount") is not None:
        document["spec"]["maxTrialCount"] = 2_000
    assert any(expected in str(violation) for violation in local_rules.broken(parse(document).document))


def test_a_local_run_has_as_many_trials_at_a_time_as_it_may():
    document = experiment()
    document["spec"].update(parallelTrialCount=1_000, maxTrialCount=1_000)
    assert local_rules.broken(parse(document).document) == []
