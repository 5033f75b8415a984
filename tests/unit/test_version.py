import subprocess
from pathlib import Path

from kondense import version
from kondense.version import source_revision


def test_the_revision_is_that_of_the_image_the_wheel_or_the_checkout(tmp_path: Path) -> None:
    places = {"revision_file": tmp_path / "revision.txt", "root": tmp_path}
    assert source_revision(environment={}, **places) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert source_revision(environment={}, **places) == ""  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    (commit,) = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.split()
    assert source_revision(environment={}, **places) == commit[:12]
    (tmp_path / "revision.txt").write_text("of the wheel\n")
    assert source_revision(environment={}, **places) == "of the wheel"
    assert source_revision(environment={"KONDENSE_REVISION": "of the image"}, **places) == "of the image"


def test_the_text_names_version_and_revision(monkeypatch) -> None:
    monkeypatch.setenv("KONDENSE_REVISION", "0506b60c7a12")
    assert version.version_text() == f"kondense {version.__version__} (source revision 0506b60c7a12)"
