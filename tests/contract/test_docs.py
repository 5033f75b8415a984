"""The documents: what their pages name exists, and the reference of parameters is current."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from kondense.errors import InputError
from kondense_pipelines.cli.reference import reference

from tests.support.documents import LINK, ROOT, blocks, check_text

PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("README.md", "docs/*.md", "*/README.md", "pipelines/examples/*.md", "tests/e2e/cluster/README.md")
    for path in ROOT.glob(pattern)
)
GENERATED = Path("docs/parameters.md")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_names_exists(page: Path) -> None:
    if page != GENERATED:
        check_text(page, (ROOT / page).read_text())


@pytest.mark.parametrize(
    "text",
    [
        "```\nkondense run --datasett digits\n```",
        "```\nkondense run --set prune.sparsitty=0.5\n```",
        "```\nkondense run --set prune.sparsity=1.5\n```",
        '```\nkondense run --recipe "prune:l3:0.5"\n```',
        "```\nkondense submit compress --param datasets=digits\n```",
        "```\nkondense compile --resource gpu=1\n```",
        "```\nkondense models lst\n```",
        "```\nkondense search\n```",
        "```\nkondense search manifests/experiments/none.yaml\n```",
        "```\nmake run && kondense infer\n```",
        "`kondense compile --kubernets`",
        "```\npython -m kondense.cli prune --dataset-dir a --model-dir b --pruned-dir c --spasity 0.5\n```",
        "```\npython -m kondense.cli prune --dataset-dir a --model-dir b --pruned-dir c \\\n    --method l3\n```",
        "```\npython -m benchmarks.compresion\n```",
        "```\npython -m benchmarks.compression --part size\n```",
        "`python -m benchmarks.compression --parts sizes`",
        "```\nmake tests\n```",
        "```\nmake images REGISTER=here\n```",
        "```\nkubectl apply -k manifests/overlays/clusters\n```",
        "`tests/unit/none/*.py`",
        "`prune.sparsitty`",
        "`--prune.sparsitty`",
        "[there](nowhere.md)",
        "[there](pruning.md#nowhere)",
        "| parameter | effect |\n|---|---|\n| `sparsity`, `targett` | |",
        "```python\nfrom kondense.methods import Nothing\n```",
        "```python\ndef broken(:\n```",
        "```python\nkd.shrink(model)\n```",
        "```python\nkd.prune(model, data, sparsitty=0.5)\n```",
        "```python\nkd.Dataset.from_nothing()\n```",
        "`kd.shrink`",
        "one\n<<<<<<< HEAD\ntwo\n=======\nthree\n>>>>>>> a change",
    ],
)
def test_something_that_does_not_exist_is_found(text: str) -> None:
    with pytest.raises((AssertionError, InputError, SyntaxError, SystemExit, TypeError)):
        check_text(Path("docs/pruning.md"), text)


def test_what_exists_is_not_found_wanting() -> None:
    text = "`prune.sparsity=0.5` `kondense compile --set STEP.FIELD=VALUE` `kondense search` [a](pruning.md#methods)"
    check_text(Path("docs/pruning.md"), text)


def test_the_first_page_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 250, f"README.md must have at most 250 lines, but has {len(lines)}"


def test_every_page_can_be_reached_from_the_first() -> None:
    seen, waiting = set(), [Path("README.md")]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for link in LINK.findall((ROOT / page).read_text()):
            target = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.relative_to(ROOT) not in seen:
                waiting.append(target.relative_to(ROOT))
    assert set(PAGES) <= seen, f"no page links to {', '.join(sorted(map(str, set(PAGES) - seen)))}"


def test_the_parameters_are_those_of_the_configs() -> None:
    text = (ROOT / GENERATED).read_text()
    assert text == reference(), "run: python -m kondense_pipelines.cli.reference > docs/parameters.md"


SITE = """
import sys
import kondense as kd
from kondense.cli import main
from kondense.recipes import compose
from kondense.testing import check_stage, check_suggester
from mypackage import clip, fixed
from tests.support.quantize_makers import make_dataset, make_model

data, scratch = make_dataset(test=60), sys.argv[1]
model = make_model("lenet300", data)
pruned = kd.prune(model, data, method="spread", sparsity=0.5, target="parameters", epochs=1)
assert pruned.metrics["parameters"] < 0.6 * pruned.metrics["parameters_before"], pruned.metrics
quantized = kd.quantize(pruned.model, data, method="clipped", bits=6).model
assert len(quantized.quantized) == 3
result = kd.search(lambda lr: -lr, {"lr": kd.uniform(0, 1)}, algorithm="fixed", max_trials=5)
assert len(result.trials) == 5
assert [step.stage for step in compose("prune:spread:0.5 > clip:bound=0.3 > quantize:clipped:6")][1] == "clip"
check_stage(clip.STAGE)
check_suggester(fixed)
data.save(f"{scratch}/data")
kd.save(pruned.model, f"{scratch}/model")
flags = [f"--{name}-dir={scratch}/{name}" for name in ("model", "clipped")]
assert main(["clip", f"--dataset-dir={scratch}/data", *flags, "--bound=0.02"]) == 0
assert max(weight.abs().max() for weight in kd.load(f"{scratch}/clipped").module.parameters()) <= 0.021
"""


def test_the_examples_of_extending_work_as_one_installed_package(tmp_path: Path) -> None:
    """The page's files and entry points, as a user would install them."""
    page = (ROOT / "docs/extend.md").read_text()
    entries = tomllib.loads("\n".join(blocks(page, "toml")))["project"]["entry-points"]
    metadata, package = tmp_path / "mypackage-1.0.dist-info", tmp_path / "mypackage"
    for directory in (metadata, package):
        directory.mkdir()
    (package / "__init__.py").touch()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
    lines = []
    files = iter(blocks(page, "python"))
    for group, named in entries.items():
        lines.append(f"[{group}]")
        for name, target in named.items():
            lines.append(f"{name} = {target}")
            file = target.partition(":")[0].removeprefix("mypackage.")
            (package / f"{file}.py").write_text(next(files))
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    path = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-c", SITE, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
