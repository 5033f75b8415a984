"""Runs and recurring runs through kfp's own client, against Kubeflow Pipelines' API over HTTP."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kfp import compiler, dsl
from kondense.version import __version__
from kondense_pipelines.cluster import access
from kondense_pipelines.cluster import client as cluster
from kondense_pipelines.cluster.client import Access, AccessError
from kondense_pipelines.cluster.package import read_package
from kondense_pipelines.cluster.recurring import Schedule

from tests.support import fake_kfp

pytestmark = pytest.mark.usefixtures("quick_yaml")


class FakePlatform(fake_kfp.FakePipelines):
    """The API with runs, and with a health that says its version as the UI of KFP 2.17 does."""

    def __init__(self, token: str = "", tag: str = "2.17.0", multi_user: bool = False) -> None:
        super().__init__(token)
        self.objects["runs"] = []
        self.health = {"apiServerTagName": tag, "apiServerReady": True, "multi_user": multi_user}

    def answer(self, method: str, url: str, body: bytes, headers: Any) -> tuple[int, dict[str, Any]]:
        path = urlsplit(url).path
        if path == fake_kfp.API + "/healthz" and (not self.token or headers.get("authorization")):
            return 200, self.health
        return super().answer(method, url, body, headers)


@pytest.fixture
def fake() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def address(fake: FakePlatform) -> Iterator[str]:
    with fake_kfp.serve(fake) as served:
        yield served


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    @dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
    def step(text: str, count: int, rate: float, flag: bool, items: list):
        """Do nothing."""

    @dsl.pipeline(name="toy")
    def toy(text: str = "a", count: int = 1, rate: float = 0.5, flag: bool = False, items: list = [1]):  # noqa: B006
        step(text=text, count=count, rate=rate, flag=flag, items=items)

    path = tmp_path_factory.mktemp("package") / "toy.yaml"
    compiler.Compiler().compile(toy, str(path))
    return path


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:
    """The same with choices, which the DSL cannot say."""
    spec = yaml.safe_load(package.read_text())
    declared = spec["root"]["inputDefinitions"]["parameters"]
    declared["text"]["literals"], declared["count"]["literals"] = ["a", "b"], [1.0, 3.0]
    path = tmp_path_factory.mktemp("choosing") / "toy.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph within a graph."""

    @dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
    def step():
        """Do nothing."""

    @dsl.pipeline(name="inner")
    def inner():
        step()

    @dsl.pipeline(name="outer")
    def outer():
        step()
        inner()

    path = tmp_path_factory.mktemp("nested") / "outer.yaml"
    compiler.Compiler().compile(outer, str(path))
    return path


def test_a_run_is_started_with_typed_parameters(fake: FakePlatform, address: str, package: Path) -> None:
    texts = ["text=b=c", "count=3", "rate=2", "flag=true", "items=[1, 2]"]
    (line,) = cluster.submit(Access(address + "/"), package, texts, name="mine")
    (run,) = fake.objects["runs"]
    assert run["display_name"] == "mine"
    assert run["runtime_config"]["parameters"] == {
        "text": "b=c",
        "count": 3,
        "rate": 2.0,
        "flag": True,
        "items": [1, 2],
    }
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "toy"
    page = f"{address}/#/runs/details/{run['run_id']}"
    title = fake.objects["versions"][0]["display_name"]
    assert line == f"run mine ({run['run_id']}) is started of version {title}: {page}"
    (experiment,) = fake.objects["experiments"]
    assert experiment["display_name"] == "kondense"
    assert "compared" in experiment["description"]


def test_a_run_is_one_of_a_registered_version(fake: FakePlatform, address: str, package: Path) -> None:
    for _ in range(2):
        list(cluster.submit(Access(address), package, ["count=3"], revision="0506b60c7a12"))
    (pipeline,), (version,) = fake.objects["pipelines"], fake.objects["versions"]
    assert version["display_name"] == f"{__version__} (0506b60)"
    assert version["name"] == f"toy-0506b60c7a12-{read_package(package).digest}"
    assert version["description"].startswith("source revision 0506b60c7a12, package ")
    for run in fake.objects["runs"]:
        reference = {"pipeline_id": pipeline["pipeline_id"], "pipeline_version_id": version["pipeline_version_id"]}
        assert run["pipeline_version_reference"] == reference
        assert run["description"] == "source revision 0506b60; count=3"
        assert re.fullmatch(r"toy \d{4}-\d\d-\d\d \d\d:\d\d", run["display_name"])


def test_two_packages_of_one_revision_are_told_apart(
    fake: FakePlatform, address: str, package: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(package.read_text().replace("defaultValue: 0.5", "defaultValue: 0.75"))
    for file in (package, other, package, other):
        list(cluster.submit(Access(address), file, revision="0506b60c7a12"))
    told = f"{__version__} (0506b60"
    digest = read_package(other).digest[:7]
    assert [each["display_name"] for each in fake.objects["versions"]] == [f"{told})", f"{told}, package {digest})"]
    assert len(fake.objects["pipelines"]) == 1


def test_a_long_description_is_cut(fake: FakePlatform, address: str, package: Path) -> None:
    list(cluster.submit(Access(address), package, ["text=" + "x" * 300]))
    assert len(fake.objects["runs"][0]["description"]) == fake_kfp.LONGEST


def test_without_the_cache_every_task_runs_again(fake: FakePlatform, address: str, nested: Path) -> None:
    assert "enableCache: true" in nested.read_text()
    (line,) = cluster.submit(Access(address), nested, caching=False)
    assert "without the cache" in line
    (run,) = fake.objects["runs"]
    assert "pipeline_version_reference" not in run
    assert fake.objects["versions"] == []
    assert "enableCache" not in json.dumps(run["pipeline_spec"])
    assert "without the cache" in run["description"]
    assert "components" in run["pipeline_spec"]


def test_a_recurring_run_without_the_cache_is_made_once(fake: FakePlatform, address: str, nested: Path) -> None:
    wanted = Schedule("nightly", "outer", "0 0 3 * * *", True)

    def keep(*, caching: bool) -> list[str]:
        return list(cluster.schedule(Access(address), nested, wanted, "0123", caching=caching))

    assert "made, on" in keep(caching=False)[0]
    assert "it is there, on" in keep(caching=False)[0]
    (found,) = fake.objects["recurringruns"]
    assert "enableCache" not in json.dumps(found["pipeline_spec"])
    assert "replaced, on" in keep(caching=True)[1]
    assert "it is there, on" in keep(caching=True)[1]
    assert "replaced, on" in keep(caching=False)[0]


@pytest.mark.parametrize(
    ("health", "path", "namespace", "page"),
    [
        ({"tag_name": "2.17.0"}, "", "", f"{access.FORWARD}, then http://localhost:8080/#/runs/details/7"),
        ({"apiServerTagName": "2.17.0"}, "", "", "https://host/#/runs/details/7"),
        ({"apiServerReady": True}, "/pipeline/", "", "https://host/pipeline/#/runs/details/7"),
        (
            {"apiServerTagName": "2.17.0", "multi_user": True},
            "/pipeline/",
            "team",
            "https://host/_/pipeline/?ns=team#/runs/details/7",
        ),
    ],
    ids=["API", "UI", "UI under a path", "central dashboard"],
)
def test_the_page_of_a_run(health: dict[str, Any], path: str, namespace: str, page: str) -> None:
    connected = access.Connected(None, namespace or None, has_pages=access.has_pages(health))
    assert access.run_page(Access(f"https://host{path}", namespace), connected, "7") == page


def test_at_the_api_the_line_says_how_to_open_the_pages(fake: FakePlatform, address: str, package: Path) -> None:
    fake.health = {"tag_name": "2.17.0", "multi_user": False}
    (line,) = cluster.submit(Access(address), package)
    (run,) = fake.objects["runs"]
    assert address not in line
    assert line.endswith(f"{access.FORWARD}, then http://localhost:8080/#/runs/details/{run['run_id']}")


def test_an_old_server_gets_a_package_of_its_own(
    fake: FakePlatform, address: str, package: Path, choosing: Path
) -> None:
    asked: list[str] = []

    def recompile(version: str) -> Path:
        asked.append(version)
        return package

    for tag in ("master", "2.16.1"):
        fake.health["apiServerTagName"] = tag
        list(cluster.submit(Access(address), choosing, recompile=recompile))
    assert asked == []
    fake.health["apiServerTagName"] = "2.15.2"
    list(cluster.submit(Access(address), choosing, recompile=recompile))
    assert asked == ["2.15"]
    assert "literals" not in json.dumps(fake.objects["runs"][-1]["pipeline_spec"])
    changes = len(fake.changes)
    with pytest.raises(ValueError, match=r"no choices of parameters, .*2\.15 refuses: .*--resource kfp_version=2\.15"):
        list(cluster.submit(Access(address), choosing))
    with pytest.raises(ValueError, match=r"--resource kfp_version=2\.15"):
        list(cluster.schedule(Access(address), choosing, Schedule("n", "toy", "0 0 3 * * *"), "0123"))
    assert len(fake.changes) == changes


def test_a_schedule_with_a_wrong_parameter_is_refused_before_anything_is_asked(choosing: Path) -> None:
    for parameters, message in (
        ({"text": "c"}, "text must be one of a, b, but got 'c'"),
        ({"count": 7}, "count must be one of 1, 3, but got 7"),
        ({"count": "3"}, "count must be int, but got '3'"),
        ({"flags": True}, "the name of a parameter must be one of count, flag, items, rate, text"),
    ):
        wanted = Schedule("nightly", "toy", "0 0 3 * * *", True, parameters=parameters)
        with pytest.raises(ValueError, match=message):
            list(cluster.schedule(Access("http://127.0.0.1:1"), choosing, wanted, "0123"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count", "--param must be name=value, but got 'count'"),
        ("counts=1", "must be one of count, flag, items, rate, text, but got 'counts'"),
        ("count=one", "count must be int, but got 'one'"),
        ("flag=1", "flag must be one of false, true"),
        ("items=[1", "items must be JSON"),
        ('items={"a": 1}', "items must be list, but got {'a': 1}"),
    ],
)
def test_a_wrong_parameter_is_told_before_anything_is_asked(package: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(cluster.submit(Access("http://127.0.0.1:1"), package, [text]))


def test_a_recurring_run_is_made_left_alone_and_replaced(fake: FakePlatform, address: str, package: Path) -> None:
    def keep(cron: str = "0 0 3 * * *", **parameters: Any) -> list[str]:
        wanted = Schedule("nightly", "toy", cron, True, parameters=parameters)
        return list(cluster.schedule(Access(address), package, wanted, "0123"))

    assert "made, on" in keep(count=2)[1]
    changes = len(fake.changes)
    assert "it is there, on" in keep(count=2)[1]
    assert len(fake.changes) == changes
    assert "replaced, on" in keep(count=3)[1]
    assert "replaced" in keep("0 30 4 * * *", count=3)[1]
    (found,) = fake.objects["recurringruns"]
    assert found["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert found["runtime_config"]["parameters"] == {"count": 3}


def test_five_fields_are_no_schedule() -> None:
    with pytest.raises(ValueError, match="cron must have six fields, seconds first"):
        Schedule("nightly", "toy", "0 3 * * *")


def test_nothing_listens_and_how_to_forward_a_port(package: Path) -> None:
    with pytest.raises(AccessError, match="nothing answers at http://127.0.0.1:1 .*kubectl -n kubeflow port-forward"):
        list(cluster.submit(Access("http://127.0.0.1:1"), package))


@pytest.mark.parametrize(
    ("told", "message"),
    [("2.13.1", "must be 2.14 or newer, but .* is 2.13.1"), ("v1.8.5", "must be 2.14 or newer, but .* is v1.8.5")],
)
def test_an_old_platform(fake: FakePlatform, address: str, package: Path, told: str, message: str) -> None:
    fake.health = {"apiServerTagName": told, "multi_user": False}
    with pytest.raises(AccessError, match=message):
        list(cluster.submit(Access(address), package))


@pytest.mark.parametrize("told", ["2.14.0", "2.17.0", "2.20.1", "3.0", "unknown", "", "master"])
def test_a_new_or_unnamed_version(told: str) -> None:
    cluster.check_version({"tag_name": told}, "x")


@pytest.mark.parametrize(("token", "given"), [("", "requires a token"), ("expired", "refuses the token")])
def test_a_token_that_is_missing_or_expired(
    fake: FakePlatform, address: str, package: Path, token: str, given: str
) -> None:
    fake.token = "right"
    with pytest.raises(AccessError, match=f"{given} .*401.*--token or KONDENSE_TOKEN") as caught:
        list(cluster.submit(Access(address, token=token), package))
    assert "expired" not in str(caught.value) and "\n" not in str(caught.value)
    assert list(cluster.submit(Access(address, token="right"), package))


def test_profiles_want_a_namespace(fake: FakePlatform, address: str, package: Path) -> None:
    fake.health["multi_user"] = True
    with pytest.raises(AccessError, match="give --namespace"):
        list(cluster.submit(Access(address), package))
    list(cluster.submit(Access(address, namespace="team"), package))
    assert fake.objects["experiments"][0]["namespace"] == "team"


def test_what_the_platform_refuses(fake: FakePlatform, address: str, package: Path) -> None:
    fake.refuse = "forbidden: exceeded quota: runs"
    with pytest.raises(AccessError, match="the namespace's quota is exceeded: .*raise its ResourceQuota"):
        list(cluster.submit(Access(address), package))
    fake.refuse = "Invalid input error: \n something"
    with pytest.raises(AccessError, match="answered 400: Invalid input error: something"):
        list(cluster.submit(Access(address), package))


@pytest.fixture
def other_server() -> Iterator[ThreadingHTTPServer]:
    """A web server that is no Kubeflow Pipelines: / is a page, /away leads there, all else is missing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path
            code = 302 if path.startswith("/away") else 200 if path.startswith(("/login", "/page")) else 404
            content = b"<html>sign in</html>"
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "/login")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "is not Kubeflow Pipelines .404"),
        ("/page", "is not Kubeflow Pipelines"),
        ("/away", "requires a token .*login"),
    ],
)
def test_something_else_answers(other_server: ThreadingHTTPServer, package: Path, path: str, message: str) -> None:
    address = f"http://127.0.0.1:{other_server.server_port}{path}"
    with pytest.raises(AccessError, match=message) as caught:
        list(cluster.submit(Access(address), package))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["localhost:8080", "", "ftp://x", "http://"])
def test_an_endpoint_is_an_address(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint must be http://host:port"):
        Access(endpoint)


def test_an_endpoint_is_cleaned_and_holds_no_secret() -> None:
    assert Access("http://localhost:8080\n").endpoint == "http://localhost:8080"
    with pytest.raises(ValueError, match="endpoint must hold no name and password") as caught:
        Access("http://user:secret@host")
    assert "secret@" not in str(caught.value)


def test_a_file_that_is_no_pipeline(tmp_path: Path) -> None:
    for content in ("", "a: 1", "[", "[" * 200_000, "\x00"):  # deep: libyaml's composer would overflow the stack
        (tmp_path / "other.yaml").write_text(content)
        with pytest.raises(ValueError, match="must be a compiled pipeline"):
            cluster.declared_parameters(tmp_path / "other.yaml")


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(Access(token="secret"))
