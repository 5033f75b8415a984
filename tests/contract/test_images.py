"""An image that is pushed has its base by digest, so that what a manifest refers to can be built again."""

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("image", ["stage", "suggestion"])
def test_a_base_without_digest_is_not_pushed(image: str) -> None:
    refused = make(f"image-{image}", "PUSH=yes")
    assert refused.returncode == 2
    assert "BASE_IMAGE must have a digest in images that are pushed" in refused.stderr
    assert "docker build" not in refused.stdout
    pushed = make(f"image-{image}", "PUSH=yes", "BASE_IMAGE=python@sha256:0123")
    assert pushed.returncode == 0
    assert f"docker push kondense/{image}-python" in pushed.stdout
    assert make(f"image-{image}").returncode == 0


@pytest.mark.parametrize("image", ["stage", "suggestion"])
def test_images_import_nothing_from_the_working_directory(image: str) -> None:
    assert "PYTHONSAFEPATH=1" in (REPOSITORY / f"images/{image}/Dockerfile").read_text()
