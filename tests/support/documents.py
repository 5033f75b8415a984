"""Checks of a Markdown page: its commands, paths, links, parameters and Python code exist. Nothing is run."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kondense
import typer
from kondense.cli import make_parser
from kondense.config import from_flags
from kondense.distill.config import DistillConfig
from kondense.prune.config import PruneConfig
from kondense.quantize.config import QuantizeConfig
from kondense.stages import STAGES
from kondense_pipelines.cli.app import app
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.compile import EXPERIMENT
from kondense_pipelines.graphs.parameters import CURATED, PROFILE, STEPS, read_settings, resolve
from kondense_pipelines.graphs.resources import Resources, read_resources
from kondense_pipelines.graphs.search import read_template, search_parameters
from typer.core import TyperGroup
from typer.exceptions import TyperException

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
FOLDERS = "components|pipelines|manifests|images|benchmarks|tests|docs"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*[\w*]")
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
MERGE = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(rf"({'|'.join(STEPS)})\.(?!html|json|md)(\w+)")
PARAMETERS = {"pruning": PruneConfig, "distillation": DistillConfig, "quantization": QuantizeConfig}
OURS = {"kondense", "kondense_pipelines", "benchmarks", "tests"}


class Command(NamedTuple):
    """A command that a page shows; ``whole`` if it could be run as it is, not a mention in a sentence."""

    words: tuple[str, ...]
    whole: bool


def blocks(text: str, *languages: str) -> Iterator[str]:
    return (body for language, body in FENCE.findall(text) if language in languages)


def commands(text: str) -> Iterator[Command]:
    for block in blocks(text, "", "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield from simple_commands(line, whole=True)
    for span in SPAN.findall(FENCE.sub("", text)):
        yield from simple_commands(span, whole=False)


def simple_commands(line: str, *, whole: bool) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError:  # an unclosed quote: prose, a table
        return
    for token in [*tokens, ";"]:
        if token and set(token) <= set("|&;<>"):
            if words:
                yield Command(tuple(without_environment(words)), whole)
            words = []
        else:
            words.append(token)


def without_environment(words: Sequence[str]) -> Sequence[str]:
    while len(words) > 1 and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words[2:] if list(words[:2]) == ["uv", "run"] else words


def check_command(command: Command) -> None:
    words = command.words
    if words[0] == "kondense":
        check_kondense(words[1:], whole=command.whole)
    elif words[0] in ("python", "python3") and words[1:2] == ("-m",) and len(words) > 2:
        check_module(words[2], words[3:], whole=command.whole)
    elif words[0] == "make":
        check_make(words[1:])


def check_kondense(words: Sequence[str], *, whole: bool) -> None:
    tool: Any = typer.main.get_command(app)
    rest = list(words)
    while isinstance(tool, TyperGroup) and rest:
        name = rest.pop(0)
        if name in ("--version", "--help"):
            return
        tool = tool.get_command(typer.Context(tool), name)
        assert tool, f"there is no command kondense {name}"
    if not rest and not whole:
        return
    try:
        given = tool.make_context("kondense", rest).params
    except TyperException as error:
        if whole or not str(error).startswith("Missing"):
            raise AssertionError(f"kondense {' '.join(words)}: {error}") from None
        return
    check_values(str(tool.name), given)


def check_values(name: str, given: dict[str, Any]) -> None:
    def texts(key: str) -> list[str]:
        return [text for text in given.get(key) or () if not text[:1].isupper()]  # STEP.FIELD=VALUE stands for any

    if name in ("run", "compile"):
        plain = {key: given[key] for key in ("dataset", "network", "seed") if given[key] is not None}
        plain |= {f"dataset_{key}": given[key] for key in ("source", "image_size") if given[key] is not None}
        configs = resolve(str(given["profile"]), plain, texts("settings"))
        read_plan(configs, given["candidates"], texts("recipe"))
    if name == "compile":
        read_resources(text for text in texts("resource") if "=" in text)
    for text in texts("param"):
        assert text.partition("=")[0] in form_names(), f"the run form has no field {text}"
    for key in ("file", "experiment"):
        if given.get(key) and "/" in str(given[key]):
            assert (ROOT / str(given[key])).is_file(), f"there is no file {given[key]}"


def form_names() -> set[str]:
    search = search_parameters(read_template(EXPERIMENT)["spec"], Resources())
    return {*CURATED, PROFILE, *search, "refresh_always"}


def check_module(module: str, words: Sequence[str], *, whole: bool) -> None:
    if module == "kondense.cli":
        check_stage(words, whole=whole)
    elif module.partition(".")[0] in OURS:
        assert importlib.util.find_spec(module), f"there is no module {module}"
        source = "".join(path.read_text() for path in sources(module))
        for word in words:
            if word == "--":
                break
            name = word.partition("=")[0]
            assert not word.startswith("--") or name == "--help" or f'"{name}"' in source, f"{module} has no {name}"
        if "--parts" in words:
            known = importlib.import_module(f"{module}.__main__").PARTS
            for part in words[words.index("--parts") + 1].split(","):
                assert part in known, f"{module} has no part {part}"


def sources(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    assert spec
    if spec.submodule_search_locations:
        return list(Path(spec.submodule_search_locations[0]).glob("*.py"))
    return [Path(str(spec.origin))]


def check_stage(words: Sequence[str], *, whole: bool) -> None:
    if not words or words[0] == "STAGE":
        return
    stage = STAGES[words[0]]
    parser = make_parser(stage)
    if not whole:
        known = parser._option_string_actions
        assert all(word in known for word in words[1:] if word.startswith("--")), f"{words} has an unknown flag"
    elif "--help" not in words:
        namespace, unknown = parser.parse_known_args(list(words[1:]))
        assert not unknown, f"{stage.name} has no {' '.join(unknown)}"
        from_flags(namespace, stage.config_class)


def check_make(words: Sequence[str]) -> None:
    for word in words:
        name, assigned, _ = word.partition("=")
        if assigned:
            assert re.search(rf"\b{name}\b", MAKEFILE), f"the Makefile has no variable {name}"
        else:
            assert re.search(rf"^{re.escape(name)}:", MAKEFILE, re.MULTILINE), f"the Makefile has no target {name}"


def check_text(page: Path, text: str) -> None:
    """Raise AssertionError or InputError for what a page names and does not exist, or for both sides of a merge."""
    assert not MERGE.search(text), f"{page} holds both sides of a merge"
    for command in commands(text):
        check_command(command)
    for path in PATH.findall(text):
        assert list(ROOT.glob(path)) or (ROOT / page).parent.joinpath(path).exists(), f"there is no {path}"
    for link in LINK.findall(FENCE.sub("", text)):
        check_link(page, link)
    check_parameters(page, text)
    for name in re.findall(r"`kd\.(\w+)", FENCE.sub("", text)):
        assert name in kondense.__all__, f"kondense has no public name {name}"
    for code in blocks(text, "python"):
        check_python(code)


def check_parameters(page: Path, text: str) -> None:
    for span in SPAN.findall(FENCE.sub("", text)):
        if match := FIELD.match(span):
            read_settings([f"{match[1]}.{match[2]}=1"])
        elif match := re.match(r"--(\w+\.\w+)$", span):
            assert f"--{match[1]}" in make_parser(STAGES["trial"])._option_string_actions, f"a trial has no {span}"
    for name in first_cells(text, "parameter"):
        if config := PARAMETERS.get(page.stem):
            assert name.partition("=")[0] in config.__dataclass_fields__, f"{config.__name__} has no {name}"
    for name in first_cells(text, "field") if page.stem == "kubeflow-ui" else ():
        assert name in form_names(), f"the run form has no field {name}"


def public(node: ast.expr) -> Any:
    """Return the object of ``kd.NAME`` or ``kd.NAME.ATTRIBUTE``; None for other expressions."""
    if not isinstance(node, ast.Attribute):
        return None
    if isinstance(node.value, ast.Name) and node.value.id == "kd":
        assert node.attr in kondense.__all__, f"kondense has no public name {node.attr}"
        return getattr(kondense, node.attr)
    owner = public(node.value)
    assert owner is None or hasattr(owner, node.attr), f"{ast.unparse(node.value)} has no {node.attr}"
    return owner and getattr(owner, node.attr)


def check_link(page: Path, link: str) -> None:
    target, _, anchor = link.partition("#")
    if "://" in target:
        return
    path = (ROOT / page).parent / target if target else ROOT / page
    assert path.exists(), f"{page} links to {link}, which is not there"
    assert not anchor or anchor in anchors(path.read_text()), f"{page} links to {link}, which has no such heading"


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def first_cells(text: str, heading: str) -> list[str]:
    """The code spans in the first column of the tables whose first heading is ``heading``."""
    names, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        inside = bool(cells) and (inside or cells[0] == heading)
        names += SPAN.findall(cells[0]) if inside else []
    return names


def check_python(code: str) -> None:
    """Raise AssertionError or TypeError for an import, a public name or an argument that does not exist."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and (function := public(node.func)):
            positional = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
            inspect.signature(function).bind_partial(*positional, **{each.arg or "": None for each in node.keywords})
        if isinstance(node, ast.Attribute):
            public(node)
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in OURS:
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
