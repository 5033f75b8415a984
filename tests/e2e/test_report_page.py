"""The report's page in a real browser, in the sandboxed frame in which the KFP UI shows it."""

import re

import pytest
from kondense.report.config import ReportConfig
from kondense.report.stage import run

from tests.support.browser import ask
from tests.support.report_makers import make_evaluation, make_evaluations, write_candidates

LAYOUT = """
const root = document.documentElement;
answer.width = root.clientWidth;
answer.contentWidth = root.scrollWidth;
answer.origin = origin;
answer.ground = getComputedStyle(document.body).backgroundColor;
answer.tooWide = [...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.width && box.right > root.clientWidth + 0.5 && !element.closest(".scroll") && !element.closest("#tip");
}).map((element) => element.outerHTML.slice(0, 120));
const shown = (element) => element.getBoundingClientRect().width > 0;
answer.pictures = [...document.querySelectorAll("svg[role]")].filter(shown).map((svg) => {
  const box = svg.getBoundingClientRect();
  return { label: svg.getAttribute("aria-label"), width: box.width, height: box.height };
});
answer.images = [...document.images].map((image) => image.naturalWidth);
const scale = (text) => text.ownerSVGElement.getBoundingClientRect().width / text.ownerSVGElement.viewBox.baseVal.width;
answer.smallest = Math.min(...[...document.querySelectorAll("svg[role] text")].map(
  (text) => parseFloat(getComputedStyle(text).fontSize) * scale(text)));
answer.labels = [...document.querySelectorAll("svg.scatter")].map((svg) =>
  [...svg.querySelectorAll(".label")].map((label) => {
    const { left, top, right, bottom } = label.getBoundingClientRect();
    return { name: label.textContent, box: [left, top + 2, right, bottom - 2] };
  }));
answer.scrolling = [...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.getAttribute("aria-label"));
answer.heading = document.querySelector(".headline h2").textContent;
"""

USE = """
const names = () => [...document.querySelectorAll("table.candidates tbody th .name")].map((cell) => cell.textContent);
const heading = (text) => [...document.querySelectorAll("table.candidates thead button")]
  .find((button) => button.textContent === text);
answer.before = names();
heading("kz").click();
answer.largestFirst = names();
answer.sorted = heading("kz").parentElement.getAttribute("aria-sort");
heading("kz").click();
answer.smallestFirst = names();
heading("like teacher").click();
answer.withoutValueLast = names().at(-1);

const panels = () => [...document.querySelectorAll("[role=tabpanel]")].filter((panel) => !panel.hidden);
answer.panel = panels().map((panel) => panel.querySelector("h3").textContent);
const tab = [...document.querySelectorAll("[role=tab]")].find((each) => each.textContent === "pruned");
tab.click();
answer.panelAfterClick = panels().map((panel) => panel.querySelector("h3").textContent);
tab.focus();
tab.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
answer.panelAfterArrow = panels().map((panel) => panel.querySelector("h3").textContent);

const tip = document.getElementById("tip");
answer.tipAtFirst = tip.hidden;
document.querySelector(".scatter .mark.chosen").focus();
answer.tip = tip.hidden ? "" : tip.innerText;
answer.lit = [...document.querySelectorAll(".lit")].length;
dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
answer.tipAtLast = tip.hidden;

document.querySelector('nav a[href="#lineage"]').click();
answer.address = location.href;
document.querySelectorAll("details").forEach((details) => { details.open = true; });
answer.openWidth = document.documentElement.scrollWidth - document.documentElement.clientWidth;
"""


def make_page(directory, evaluations, **options):
    places = {"report_dir": directory / "report", "chosen_dir": directory / "chosen"}
    run(ReportConfig(**options), candidate_dirs=write_candidates(directory / "candidates", evaluations), **places)
    return directory / "report" / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("run"), make_evaluations())


@pytest.fixture(scope="module")
def crowded_page(tmp_path_factory):
    """Many classes, many candidates with long names, one that broke, and names that would be markup."""
    classes = tuple(f"<b>class & {index}</b>" for index in range(40))
    evaluations = make_evaluations(classes=classes)
    for index in range(6):
        figures = (0.905, 0.899 + 0.001 * index, 40_000 * (index + 1), 0.06 + 0.005 * index, 3.0)
        recipe = ([("quantize", "quantize")], (16, 32, 256), 8, 0.0)
        name = f"another-way-of-making-it-small-{index}"
        evaluations.append(make_evaluation(name, classes=classes, figures=figures, recipe=recipe))
    broken = (0.1, 0.3, 300_000, 0.1, 4.0)
    evaluations.append(make_evaluation("<script>broken", classes=classes, figures=broken, recipe=recipe))
    return make_page(tmp_path_factory.mktemp("crowded"), evaluations, title="<i>A title</i> that is rather long " * 3)


def overlapping(labels):
    """Pairs of labels whose boxes on the screen share more than an edge."""
    return [
        (first["name"], second["name"])
        for index, first in enumerate(labels)
        for second in labels[:index]
        if min(first["box"][2], second["box"][2]) - max(first["box"][0], second["box"][0]) > 0.5
        and min(first["box"][3], second["box"][3]) - max(first["box"][1], second["box"][1]) > 0.5
    ]


@pytest.mark.parametrize("width", [1280, 480])
@pytest.mark.parametrize("name", ["page", "crowded_page"])
def test_readable_at_this_width(name, width, request, tmp_path):
    answer = ask(request.getfixturevalue(name), LAYOUT, tmp_path / "chromium", width=width)
    assert answer["problems"] == []
    assert answer["console"] == []
    assert answer["origin"] == "null"
    assert answer["width"] == width
    assert answer["contentWidth"] <= width
    assert answer["tooWide"] == []
    assert answer["smallest"] >= 10
    assert all(picture["width"] > 200 and picture["height"] > 100 for picture in answer["pictures"])
    assert all(size > 0 for size in answer["images"])
    labels = [picture["label"] for picture in answer["pictures"]]
    assert sum("Test accuracy against" in label for label in labels) == 2
    assert any(label.startswith("train: validation accuracy from") for label in labels)
    for chart in answer["labels"]:
        assert overlapping(chart) == []


def test_every_candidate_has_its_label_in_both_pictures(page, tmp_path):
    answer = ask(page, LAYOUT, tmp_path / "chromium", width=1280)
    names = sorted(evaluation["name"] for evaluation in make_evaluations())
    assert [sorted(label["name"] for label in chart) for chart in answer["labels"]] == [names, names]
    assert answer["heading"] == "sparse-packed"


def test_wide_tables_scroll_inside_their_own_boxes(page, tmp_path):
    answer = ask(page, LAYOUT, tmp_path / "chromium", width=480)
    assert "Table of candidates" in answer["scrolling"]


def test_the_page_follows_the_readers_colour_scheme(page, tmp_path):
    light = ask(page, LAYOUT, tmp_path / "light", width=1280)
    dark = ask(page, LAYOUT, tmp_path / "dark", width=1280, dark=True)
    assert light["ground"] == "rgb(255, 255, 255)"
    assert max(int(value) for value in re.findall(r"\d+", dark["ground"])) < 40


@pytest.mark.parametrize("width", [1280, 480])
def test_sorting_tabs_details_and_links_work(page, width, tmp_path):
    answer = ask(page, USE, tmp_path / "chromium", width=width)
    sizes = {evaluation["name"]: evaluation["bytes"]["kz"] for evaluation in make_evaluations()}
    assert answer["before"] == list(sizes)
    assert answer["largestFirst"] == sorted(sizes, key=lambda name: -sizes[name])
    assert answer["sorted"] == "descending"
    assert answer["smallestFirst"] == sorted(sizes, key=lambda name: sizes[name])
    assert answer["withoutValueLast"] == "teacher"
    assert answer["panel"] == ["sparse-packed"]
    assert answer["panelAfterClick"] == ["pruned"]
    assert answer["panelAfterArrow"] == ["pruned-quantized"]
    assert answer["tipAtFirst"] is True
    assert answer["tip"].startswith("sparse-packed\n90.71 % test accuracy (−0.13)")
    assert answer["lit"] == 3
    assert answer["tipAtLast"] is True
    assert answer["address"] == "about:srcdoc"
    assert answer["openWidth"] <= 0
    assert answer["problems"] == []


def test_the_page_of_a_run_whose_teacher_stays(tmp_path):
    page = make_page(tmp_path, [make_evaluation("teacher")])
    answer = ask(page, LAYOUT, tmp_path / "chromium", width=480)
    assert answer["heading"] == "teacher"
    assert answer["problems"] == []
    assert answer["contentWidth"] <= 480
