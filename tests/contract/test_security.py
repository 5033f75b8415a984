"""Each statement of SECURITY.md has a test that tries it; what could run a file's content stands in known places."""

import ast
import json
import os
from pathlib import Path

import onnx
import pytest
import torch
from kondense.artifacts.model import load_model, save_model
from kondense.errors import KondenseError
from kondense.export.onnx import export_onnx
from kondense.files import ArtifactError, json_bytes, sha256
from kondense_pipelines.cli.infer import exported_model, infer
from PIL import Image

from tests.support.documents import ROOT
from tests.support.quantize_makers import make_dataset, make_model

UNIT = "tests/unit/"
STATEMENTS = [  # words of SECURITY.md, and the test that tries them
    ("which a search starts. It is read within bounds", "katib/test_yaml_text.py", "test_it_is_refused_in_one_line"),
    (
        "the journal of a search: its trials' names and values",
        "search/test_run.py",
        "test_a_journal_that_would_lead_elsewhere_is_refused",
    ),
    (
        "each of which must have its SHA-256",
        "artifacts/test_model.py",
        "test_every_truncation_and_change_of_a_file_is_noticed",
    ),
    (
        "any other file, folder or link in the directory is refused",
        "test_files.py",
        "test_what_the_artifact_does_not_list_is_refused",
    ),
    (
        "except for hidden ones, which nothing reads",
        "test_files.py",
        "test_a_copy_of_an_artifact_leaves_out_what_nothing_checks",
    ),
    ("by its name in the library's own list", "networks/test_allowed.py", "test_libraries_build_what_their_lists_name"),
    (
        "within bounds, never with published weights",
        "networks/test_allowed.py",
        "test_arguments_of_an_artifact_are_bounded",
    ),
    (
        "only if the operator names it or its package",
        "networks/test_allowed.py",
        "test_what_an_artifact_names_needs_the_users_word",
    ),
    (
        "import anything because the artifact says so",
        "networks/test_allowed.py",
        "test_no_factory_of_any_library_is_admitted",
    ),
    (
        "they can neither raise one nor add one",
        "artifacts/test_literals.py",
        "test_an_edit_can_only_lower_a_number_that_the_code_has",
    ),
    (
        "Stages run without the working directory",
        "networks/test_allowed.py",
        "test_commands_import_no_library_from_the_working_directory",
    ),
    ("neither a file beside an artifact", "networks/test_allowed.py", "test_nothing_is_imported_before_the_refusal"),
    (
        "Kondense checks its digest where it comes with a model",
        "pipelines/test_infer.py",
        "test_an_exchanged_file_is_found_out_by_its_digest",
    ),
    ("which refuses everything but tensors", "train/test_imported.py", "test_other_files_are_refused_in_one_line"),
    ("understands the few steps", "data/test_cifar.py", "test_a_malicious_pickle_is_refused_and_runs_nothing"),
    ("| JSON |", "test_files.py", "test_the_reader_of_json_refuses_what_later_code_cannot_bear"),
    ("| `model.json` |", "networks/test_allowed.py", "test_arguments_of_an_artifact_are_bounded"),
    (
        "| `.pt`, `.pth`, `.ckpt` |",
        "train/test_imported.py",
        "test_an_archive_that_grows_is_refused_before_it_does",
    ),
    (
        "| weights of a user's network |",
        "networks/test_allowed.py",
        "test_a_base_network_is_no_larger_than_pruning_explains",
    ),
    ("| `weights.kz` |", "codec/test_kz.py", "test_more_than_the_limit_is_refused"),
    ("| pictures |", "data/test_picture.py", "test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded"),
    ("| folders and local stores |", "store/test_local_store.py", "test_a_pipe_and_folders_without_end_are_refused"),
    (
        "tensors without values of their own",
        "train/test_imported.py",
        "test_tensors_without_values_of_their_own_are_refused_in_one_line",
    ),
    (
        "one of clients whose last was so large",
        "suggestion/test_admission.py",
        "test_a_turn_is_kept_for_clients_whose_last_message_was_not_large",
    ),
    ("| idx |", "data/test_fashion_mnist.py", "test_a_file_of_zeros_is_refused_by_its_header"),
    ("| CIFAR batches |", "data/test_cifar.py", "test_a_pickle_takes_what_its_bytes_are_worth"),
    (
        "| all decoded images |",
        "data/test_examination.py",
        "test_images_that_do_not_fit_into_memory_are_an_error_before_they_are_read",
    ),
    ("| YAML of Experiments", "katib/test_yaml_text.py", "test_it_is_refused_in_one_line"),
    ("| trials' metrics |", "katib/test_metrics.py", "test_a_long_line_takes_time_in_proportion_to_it"),
    (
        "| requests of the suggestion",
        "suggestion/test_admission.py",
        "test_a_message_beyond_the_limit_is_refused_by_its_length",
    ),
    (
        "| answers of Katib's database |",
        "suggestion/test_early_stopping.py",
        "test_a_request_that_cannot_be_answered_tells_why",
    ),
    ("| answers of Kubernetes' API", "suggestion/test_trial_objects.py", "test_another_answer_is_told"),
    (
        "none compressed",
        "suggestion/test_server.py",
        "test_a_compressed_message_is_refused_before_it_grows",
    ),
    (
        "2,048 in all",
        "suggestion/test_server.py",
        "test_calls_beyond_a_number_are_refused_before_they_wait",
    ),
    (
        "one host's leave a turn to others",
        "suggestion/test_admission.py",
        "test_one_host_whose_calls_bring_no_message_leaves_a_turn_to_others",
    ),
    (
        "| a trial's command |",
        "katib/test_template.py",
        "test_a_command_that_no_process_can_have_is_refused_before_any_trial",
    ),
    (
        "which are not replaced again",
        "katib/test_template.py",
        "test_what_a_value_holds_is_not_replaced_again",
    ),
    (
        "| what trials leave in the place of their metrics |",
        "local_search/test_reports.py",
        "test_whatever_a_trial_leaves_where_its_reports_should_be_the_search_goes_on",
    ),
    (
        "a few bytes for each report",
        "local_search/test_reports.py",
        "test_a_trial_that_reports_without_end_takes_a_few_bytes_a_report",
    ),
    (
        "is read once, 16 MiB at a look",
        "local_search/test_reports.py",
        "test_first_reports_are_read_on_from_where_the_last_look_ended",
    ),
    (
        "| answers of Kubernetes' API to steps, and of Kubeflow Pipelines to commands |",
        "katib_search/test_cluster.py",
        "test_an_answer_beyond_the_limit_is_refused_compressed_or_not",
    ),
    ("whatever is sent or comes: 300 s and 1 s", "test_pace.py", "test_an_answer_that_drips_ends"),
    ("that has 100 empty pages one after", "store/test_bucket.py", "test_empty_pages_without_end_are_damage"),
    ("10 s from the first byte to the last", "test_pace.py", "test_the_kubernetes_api_and_early_stopping_keep_a_pace"),
    ("500 pages of a list", "katib_search/test_cluster.py", "test_a_list_without_end_is_refused"),
    ("of another form: one line", "katib_search/test_cluster.py", "test_what_is_no_list_is_told_in_one_line"),
    ("no redirect is followed", "katib_search/test_cluster.py", "test_the_token_is_sent_nowhere_else"),
    (
        "| what a command of a trial prints |",
        "trial/test_trial.py",
        "test_a_command_may_print_what_is_no_text_and_lines_without_end",
    ),
    (
        "64 MiB once decompressed, but for objects",
        "store/test_bucket.py",
        "test_an_answer_that_is_no_object_is_bounded_compressed_or_not",
    ),
    ("10,000,000 of them, or that", "store/test_bucket.py", "test_a_listing_without_end_is_damage"),
    (
        "| a message of a call that has its turn |",
        "suggestion/test_admission.py",
        "test_a_client_that_sends_no_message_loses_its_turn",
    ),
    ("| champions, versions and reasons in a bucket |", "store/test_bucket.py", "test_an_answer_in_gzip"),
    (
        "| a reason that a trial or node leaves",
        "trial/test_trial.py",
        "test_a_reason_in_a_bucket_that_others_write_to_is_one_line",
    ),
    (
        "| tickets and listings of a store |",
        "store/test_lease.py",
        "test_foreign_names_among_the_tickets_are_no_numbers",
    ),
    ("| answers of a store |", "store/test_bucket.py", "test_a_login_page_is_no_answer_of_a_store"),
    (
        "which no terminal obeys",
        "pipelines/test_models.py",
        "test_what_others_wrote_into_the_bucket_neither_breaks_nor_rules_the_terminal",
    ),
    ("the loopback address only", "launch/test_launch.py", "test_a_killed_process_stops_all_and_a_retry_resumes"),
    ("has a network policy", "../contract/test_manifests.py", "test_network_policies_meet_the_pods_they_are_for"),
]


def plain(text: str) -> str:
    return " ".join(text.split())


SECURITY = plain((ROOT / "SECURITY.md").read_text())


@pytest.mark.parametrize(("words", "file", "name"), STATEMENTS)
def test_a_statement_stands_there_and_has_its_test(words: str, file: str, name: str) -> None:
    assert words in SECURITY
    assert f"def {name}(" in (ROOT / UNIT / file).read_text()


def test_every_bound_of_the_table_has_one() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("| input | bound |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert len(rows) > 15
    tried = [words.strip("| ") for words, *_ in STATEMENTS]
    assert [row for row in rows if not any(row.startswith(each) for each in tried)] == []


DANGEROUS = {
    "exec", "eval", "compile", "pickle.load", "pickle.loads", "torch.jit.load", "torch.export.load", "torch.load",
    "torch.package.PackageImporter", "marshal.loads", "shelve.open", "runpy.run_path", "runpy.run_module", "os.system",
    "importlib.import_module", "__import__", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "np.load",
    "torch.hub.load",
}  # fmt: skip
KNOWN = {  # calls, and what they are given
    "kfp.py": {"exec", "compile"},  # a component's own text
    "stages.py": {"importlib.import_module"},  # names in the registry
    "__init__.py": {"importlib.import_module"},
    "methods.py": {"importlib.import_module"},
    "api.py": {"importlib.import_module"},
    "launch.py": {"importlib.import_module"},  # the type of an error that a process of the same training has left
    "memory.py": {"importlib.import_module"},  # the user's module of a network given in memory
    "build.py": {"importlib.import_module"},  # a factory that the operator has named
    "program.py": {"torch.export.load"},  # what this process has just written
    "state_dicts.py": {"torch.load"},  # weights only
    "sobol_sequence.py": {"np.load"},  # a file of SciPy's
    "warm_server.py": {"importlib.import_module", "runpy.run_module"},  # kfp's executor, and modules of Kondense
}


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


def test_what_could_run_the_content_of_a_file_stands_in_known_places() -> None:
    found = {}
    for part in ("components/kondense", "pipelines/kondense_pipelines"):
        for path in sorted((ROOT / part).rglob("*.py")):
            if (risky := calls(path) & DANGEROUS) - KNOWN.get(path.name, set()) and "testing" not in path.parts:
                found[path.relative_to(ROOT).as_posix()] = risky
    assert found == {}


def test_torchs_loader_is_always_that_of_weights_only() -> None:
    tree = ast.parse((ROOT / "components/kondense/train/state_dicts.py").read_text())
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert loads
    for load in loads:
        assert {"weights_only": "True"}.items() <= {each.arg: ast.unparse(each.value) for each in load.keywords}.items()


@pytest.mark.parametrize("location", ["secret", "../secret", "/etc/hostname"])
def test_an_onnx_file_cannot_refer_to_other_files(tmp_path: Path, location: str) -> None:
    dataset = make_dataset(size=16)
    model = make_model("lenet5", dataset, width=0.5)
    proto = onnx.load_from_string(export_onnx(model, dataset))
    tensor = max(proto.graph.initializer, key=lambda each: len(each.raw_data))
    place = tmp_path / "model"
    place.mkdir()
    for secret in (place / "secret", tmp_path / "secret"):
        secret.write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (place / "referring.onnx").write_bytes(proto.SerializeToString())
    Image.new("L", (16, 16)).save(tmp_path / "0.png")
    with pytest.raises(KondenseError) as caught:
        infer(place / "referring.onnx", [tmp_path / "0.png"])
    assert "\n" not in str(caught.value)


def test_a_program_in_an_artifact_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(size=16)
    save_model(tmp_path / "m", make_model("lenet5", dataset, width=0.5), {"model.pt2": b"a program"})

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("loaded")

    for name in ("torch.export.load", "torch.jit.load", "torch.load"):
        monkeypatch.setattr(name, never)
    assert load_model(tmp_path / "m").module(torch.zeros(1, 1, 16, 16)).shape == (1, 10)


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "listed link", "pipe"])
def test_an_artifact_has_plain_files_only(tmp_path: Path, kind: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    save_model(tmp_path / "m", make_model("lenet5", make_dataset(size=16), width=0.5))
    extra = tmp_path / "m" / "extra"
    if kind == "pipe":
        os.mkfifo(extra)
    else:
        extra.symlink_to(tmp_path / "outside" / ("" if "folder" in kind else "secret"))
    if kind == "listed link":
        description = tmp_path / "m" / "model.json"
        content = json.loads(description.read_text())
        content["files"]["extra"] = sha256(extra)
        description.write_bytes(json_bytes(content))
    with pytest.raises(ArtifactError, match="extra"):
        load_model(tmp_path / "m")
    with pytest.raises(ArtifactError), exported_model(str(tmp_path / "m"), None):
        pass
