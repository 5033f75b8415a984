"""The Job that makes the object store's Secrets, against an API server over HTTP."""

import base64
from typing import Any

import pytest
from kondense_pipelines.deploy import credentials, job
from kubernetes.client import ApiException

from tests.support.fake_api import FakeApi, serve

NAMESPACE = "/api/v1/namespaces/kubeflow"
DEPLOYMENTS = "/apis/apps/v1/namespaces/kubeflow/deployments"


def secret(fake: FakeApi, name: str) -> dict[str, str]:
    data = fake.objects[f"{NAMESPACE}/secrets/{name}"]["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def put_secret(fake: FakeApi, name: str, **values: str) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    fake.put(f"{NAMESPACE}/secrets/{name}", {"metadata": {"name": name}, "data": data})


def run(fake: FakeApi) -> list[str]:
    with serve(fake) as api:
        return list(credentials.ensure(api, "kubeflow"))


def published(fake: FakeApi) -> None:
    # As it stands in Kubeflow Pipelines' manifests.
    put_secret(fake, "mlpipeline-minio-artifact", accesskey="minio", secretkey="minio" + "123")


def test_missing_secrets_are_made_at_random() -> None:
    fakes = FakeApi(), FakeApi()
    for fake in fakes:
        assert len(run(fake)) == 2
        for name, (user, password) in credentials.KEYS.items():
            made = secret(fake, name)
            assert set(made) == {user, password}
            assert 3 <= len(made[user]) <= 20 and 8 <= len(made[password]) <= 40  # MinIO's own limits
    assert secret(fakes[0], "minio-root") != secret(fakes[1], "minio-root")
    assert secret(fakes[0], "minio-root")["MINIO_ROOT_PASSWORD"] not in secret(fakes[0], credentials.ARTIFACTS).values()


def test_a_second_run_changes_nothing() -> None:
    fake = FakeApi()
    run(fake)
    before = {path: dict(content) for path, content in fake.objects.items()}
    assert all("kept" in line for line in run(fake))
    assert fake.objects == before


def test_what_the_user_made_is_kept() -> None:
    fake = FakeApi()
    put_secret(fake, "mlpipeline-minio-artifact", accesskey="mine", secretkey="of my own choice")
    run(fake)
    assert secret(fake, "mlpipeline-minio-artifact") == {"accesskey": "mine", "secretkey": "of my own choice"}


def test_the_published_default_is_replaced_and_its_readers_restarted() -> None:
    fake = FakeApi()
    published(fake)
    for name in credentials.READERS:
        template = {"spec": {"containers": [{"name": name}]}}
        fake.put(f"{DEPLOYMENTS}/{name}", {"spec": {"selector": {"matchLabels": {"app": name}}, "template": template}})
    lines = run(fake)
    assert secret(fake, credentials.ARTIFACTS)["accesskey"] != "minio"
    assert set(secret(fake, credentials.ARTIFACTS)) == {"accesskey", "secretkey"}
    for name in credentials.READERS:
        changed: Any = fake.objects[f"{DEPLOYMENTS}/{name}"]["spec"]["template"]
        assert "kubectl.kubernetes.io/restartedAt" in changed["metadata"]["annotations"]
        assert any(name in line for line in lines)


def test_without_the_readers_nothing_is_restarted() -> None:
    fake = FakeApi()
    published(fake)
    assert not any("deployment" in line for line in run(fake))


def test_no_output_holds_a_value() -> None:
    fake = FakeApi()
    published(fake)
    text = "\n".join(run(fake))
    for name in credentials.KEYS:
        assert not any(value in text for value in secret(fake, name).values())


def test_a_secret_without_its_keys_is_an_error() -> None:
    fake = FakeApi()
    put_secret(fake, "minio-root", MINIO_ROOT_USER="someone")
    with pytest.raises(ValueError, match="minio-root must hold the keys .* lacks MINIO_ROOT_PASSWORD"):
        run(fake)


def test_a_change_by_another_is_not_overwritten() -> None:
    fake = FakeApi()
    published(fake)
    fake.refuse["PUT", f"{NAMESPACE}/secrets/{credentials.ARTIFACTS}"] = 409
    with pytest.raises(ApiException):
        run(fake)


def test_a_refusal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeApi()
    fake.refuse["GET", f"{NAMESPACE}/secrets/minio-root"] = 403
    with serve(fake) as api:
        assert job.run(lambda: credentials.ensure(api, "kubeflow")) == 1
    assert capsys.readouterr().err == "error: the Kubernetes API answered 403 Forbidden: the fake says 403\n"
