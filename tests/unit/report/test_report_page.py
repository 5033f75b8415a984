"""What the page says, read by an HTML parser of its own; how it looks is tests/e2e/test_report_page.py."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from kondense.files import ArtifactError
from kondense.report import confusion, page
from kondense.report.document import build_report
from kondense.report.markup import Markup, element
from kondense.report.page import render

from tests.support.report_makers import CLASSES, make_evaluations, make_record

HOSTILE = "<script>alert('x')</script>\"&"
VOID = {"meta", "img", "br", "hr", "wbr"}


class Reader(HTMLParser):
    """Collects elements and text, and checks that every element is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page_of(evaluations, *, title=""):
    report = build_report(
        evaluations,
        ["0" * 64] * len(evaluations),
        title=title,
        objective="balanced",
        max_validation_drop=0.01,
        record=make_record("report", "report balanced", []),
    )
    return render(report)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_every_candidate_has_its_row_its_marks_and_its_panel():
    reader = read(page_of(make_evaluations()))
    named = [attributes["data-model"] for _, attributes in reader.elements if "data-model" in attributes]
    assert all(named.count(evaluation["name"]) == 3 for evaluation in make_evaluations())
    assert sum(attributes.get("role") == "tabpanel" for _, attributes in reader.elements) == 8
    assert sum(attributes.get("class") == "scatter" for _, attributes in reader.elements) == 2


def test_ids_are_unique_and_references_resolve():
    reader = read(page_of(make_evaluations()))
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.elements:
        for reference in ("aria-controls", "aria-labelledby"):
            assert attributes.get(reference, ids[0]) in ids
        if attributes.get("href"):
            assert attributes["href"].removeprefix("#") in ids


def test_names_are_data_and_never_markup():
    evaluations = make_evaluations(classes=(HOSTILE, *CLASSES[1:]))
    for evaluation in evaluations[1:]:
        evaluation["name"] += HOSTILE
        evaluation["steps"] = [HOSTILE]
        evaluation["lineage"][-1]["summary"] = HOSTILE
        evaluation["lineage"][-1]["config"]["network"] = HOSTILE
        evaluation["layers"][0]["name"] = HOSTILE
    text = page_of(evaluations, title=HOSTILE)
    reader = read(text)
    assert [tag for tag, _ in reader.elements].count("script") == 1
    assert not re.search(r"<script>alert", text)
    assert any(HOSTILE in data for data in reader.texts)
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]


def test_nothing_is_loaded_from_anywhere():
    reader = read(page_of(make_evaluations(classes=tuple(f"class {index}" for index in range(40)))))
    for tag, attributes in reader.elements:
        assert tag not in {"link", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\(|@import|https?://", page_of(make_evaluations()))


def test_the_page_stays_small_with_many_classes_and_many_layers():
    evaluations = make_evaluations(classes=tuple(f"a class of number {index}" for index in range(100)))
    for evaluation in evaluations:
        evaluation["layers"] = evaluation["layers"] * 30
    assert len(page_of(evaluations).encode()) < 2_000_000


@pytest.mark.parametrize("classes", [confusion.MOST_CELLS, confusion.MOST_CELLS + 1])
def test_a_confusion_matrix_too_large_to_read_becomes_a_picture(classes):
    text = page_of(make_evaluations(classes=tuple(f"class {index}" for index in range(classes))))
    assert ('class="confusion"' in text) == (classes <= confusion.MOST_CELLS)
    assert ("data:image/png;base64," in text) == (classes > confusion.MOST_CELLS)


def test_figures_that_meet_in_one_place_agree():
    text = page_of(make_evaluations())
    assert "22.4 kB" in text
    assert 'title="22,411 bytes"' in text
    assert "76.9×" in text


def test_elements_escape_children_and_attributes():
    assert element("p", "a < b", title='"&') == '<p title="&quot;&amp;">a &lt; b</p>'
    assert element("p", Markup("<b>x</b>"), None, ["y", ["&"]]) == "<p><b>x</b>y&amp;</p>"
    assert (
        element("td", class_="n", data_value=1.5, hidden=True, scope=None)
        == '<td class="n" data-value="1.5" hidden></td>'
    )


def luminance(colour):
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def mixed(tone, paper, share):
    """The colour of a cell: the tone over the paper, as color-mix(in srgb) gives it."""
    parts = [(int(tone[i : i + 2], 16), int(paper[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * over + (1 - share) * under):02x}" for over, under in parts)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_aa_asks_for(scheme):
    css = (Path(page.__file__).parent / "page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    for text in ("ink", "soft", "orange"):
        for ground in ("paper", "panel"):
            assert contrast(colours[text], colours[ground]) >= 4.5
    assert contrast(colours["ink"], colours["note"]) >= 4.5
    for tone in ("right", "wrong"):
        assert contrast(colours["ink"], mixed(colours[tone], colours["paper"], 0.62)) >= 4.5


@pytest.mark.parametrize(
    ("stage", "content"),
    [
        ("greedy", [{"macs": 5}, {"macs": 6}]),
        ("sensitivity", {"of": "sparsity", "rows": [{"layer": "conv1", "points": [[0.1, "high"]]}]}),
        ("sensitivity", {"of": "sparsity", "rows": [{"layer": "conv1", "points": [[0.1]]}]}),
    ],
)
def test_details_of_another_form_are_one_line(stage, content):
    """A method's details are its own: no schema holds them, and a report may come from others."""
    keys = {"greedy": "trajectory", "sensitivity": "sensitivity"}
    evaluations = make_evaluations()
    evaluations[1]["lineage"][-1]["details"] = {keys[stage]: content}
    with pytest.raises(ArtifactError, match=r"^the report 't' cannot be shown as a page: \w+Error: ") as caught:
        page_of(evaluations, title="t")
    assert "\n" not in str(caught.value)
