"""What a network's code is: everything that its module reads when it is imported, found without importing it."""

import importlib
import sys
from pathlib import Path

import pytest
import torchvision
from kondense.networks.code import code_digest, code_digests, sources

from tests.support.distribution import make_distribution, run_python

NET = "from torch import nn\n\nclass Net(nn.Module):\n    width = 8\n"


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests have imported under the names that are used here."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "beside", "space")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the path of modules."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def digest() -> str:
    return code_digest("mine.net:Net")


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("", "mine/net.py"),
        ("", "mine/__init__.py"),
        ("from . import blocks", "mine/blocks.py"),
        ("from .blocks import Block", "mine/blocks.py"),
        ("from .deep.more import Block", "mine/deep/more.py"),
        ("from .deep.more import Block", "mine/deep/__init__.py"),
        ("from .deep.more import Block", "mine/blocks.py"),
        ("from mine import blocks as b", "mine/blocks.py"),
        ("import mine.blocks", "mine/blocks.py"),
        ("import beside", "beside.py"),
        ("def make():\n    from beside import Block", "beside.py"),
        ("try:\n    import beside\nexcept ImportError:\n    pass", "beside.py"),
        ("import importlib\nBlocks = importlib.import_module('mine.blocks')", "mine/blocks.py"),
        ("import importlib\nname = 'bl' + 'ocks'\nBlocks = importlib.import_module('mine.' + name)", "mine/blocks.py"),
        ("from pathlib import Path\nSIZES = Path(__file__).parent / 'sizes.json'", "mine/sizes.json"),
        ("import space.inner", "space/inner.py"),
    ],
)
def test_whatever_the_module_reads_changes_the_digest(folder: Path, statement: str, changed: str) -> None:
    files = {
        "mine/__init__.py": "",
        "mine/net.py": f"{statement}\n{NET}",
        "mine/blocks.py": "class Block: pass\n",
        "mine/sizes.json": "[1]",
        "mine/deep/__init__.py": "",
        "mine/deep/more.py": "from ..blocks import Block\n",
        "beside.py": "class Block: pass\n",
        "space/inner.py": "",
    }
    write(folder, files)
    before = digest()
    assert before == digest() != ""
    (folder / changed).write_text((folder / changed).read_text() + "\n# another\n")
    assert digest() != before
    assert not {"mine", "beside", "space"} & set(sys.modules)  # nothing was imported


def test_other_files_do_not_count(folder: Path) -> None:
    write(folder, {"mine/__init__.py": "", "mine/net.py": NET, "mine/other.py": ""})
    before = digest()
    write(folder, {"mine/other.py": "X = 1\n", "unrelated.py": "Y = 2\n"})
    assert digest() == before
    assert set(sources("mine.net")) == {"mine", "mine.net"}


def test_modules_that_import_each_other_end(folder: Path) -> None:
    back = "from . import net\n"
    write(folder, {"mine/__init__.py": back, "mine/net.py": f"from . import blocks\n{NET}", "mine/blocks.py": back})
    assert set(sources("mine.net")) == {"mine", "mine.net", "mine.blocks"}


def test_an_installed_package_counts_by_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "site-packages"
    write(root, {"mine/net.py": f"import other\n{NET}", "mine/__init__.py": "", "other.py": ""})
    monkeypatch.syspath_prepend(root)
    before = digest()
    (root / "other.py").write_text("X = 1\n")
    assert digest() == before
    (root / "mine/net.py").write_text(NET)
    assert digest() != before


def test_a_module_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "minenet.py").write_text(NET)
    absent = code_digest("minenet:Net")
    monkeypatch.chdir(tmp_path)
    assert code_digest("minenet:Net") != absent
    assert code_digest("minenet:Net", [tmp_path]) == code_digest("minenet:Net")


def test_an_imported_module_keeps_its_digest_until_it_is_loaded_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"loaded_once.py": "class Net:\n    width = 8\n"})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("loaded_once")
    try:
        before = code_digest("loaded_once:Net")
        write(folder, {"loaded_once.py": "class Net:\n    width = 16\n"})
        assert code_digest("loaded_once:Net") == before  # this process still has the old class
        importlib.reload(module)
        assert code_digest("loaded_once:Net") != before
    finally:
        del sys.modules["loaded_once"]


def test_networks_of_libraries_count_by_version_and_other_texts_not_at_all() -> None:
    names = ["torchvision:resnet18", "torchvision:resnet18@IMAGENET1K_V1", "sgd", "minio://bucket/a", "3", ""]
    version = torchvision.__version__.partition("+")[0]
    assert {name: text.partition("+")[0] for name, text in code_digests(names).items()} == dict.fromkeys(
        names[:2], version
    )
    assert code_digest("lenet5") and code_digest("lenet5") != code_digest("resnet8")


def test_registered_networks_count(tmp_path: Path) -> None:
    make_distribution(tmp_path, {"theirs.py": NET}, {"kondense.networks": {"tiny": "theirs:Net"}})
    program = "from kondense.networks.code import code_digest, registered_digest\n"
    program += "print(code_digest('tiny'), registered_digest())"
    (first,) = run_python(program, tmp_path)
    (tmp_path / "theirs.py").write_text(NET + "# another\n")
    (second,) = run_python(program, tmp_path)
    assert not set(first.split()) & set(second.split())
