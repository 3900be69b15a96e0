"""The page, the Markdown, the JSON and the table that show findings."""

import io
import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from neuroint.report import analyse, table, write_report

pytestmark = pytest.mark.slow


HOSTILE = '<script>alert("x")</script>$a_b$|[red]&'
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Collects elements and text, and fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def said(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def html(whole):
    return write_report(whole).read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    from synthetic import Sweep, make

    evil = "</pre><img src=x onerror=alert(1)>"
    made = Sweep(
        noise={"none": 0.5, HOSTILE: 0.3, "</svg><script>": 0.4},
        failed=("</svg><script>",),
        neurons=12,
        frames=10,
        tags={"git_commit": evil, "cautions": f"{evil}: no normalization"},
        params={"optimizer.note": evil},
        name="evil",
    )
    folder = make(tmp_path_factory.mktemp("hostile") / "sweep", made)
    question = folder / "sweep.yaml"
    question.write_text("# " + evil + "\n" + question.read_text().split("\n", 1)[1])
    return folder


def test_the_page_is_well_formed(page):
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == 1
    assert "svg" in tags


def test_the_first_words_are_question_answer_and_verdicts(page):
    said = page.said()
    start = said.index("Does a population pool help?", 40)
    first = said[start : said.index("Effect sizes")]
    assert "pool predicts better than none" in first
    assert "attention was not shown to predict better than none" in first
    assert "45 neurons, 3 sessions, 3 animals, 3 seeds" in first
    assert re.search(r"Higher in \d+% of 45 neurons", first)
    assert "noisiest to most reliable fifth" in first
    assert "95% interval" in first


def test_nothing_is_loaded_from_outside(html, page):
    assert "://" not in html
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/png;base64,")), f"<{tag} {name}={target[:60]}>"
    assert not re.search(r"@import|url\((?!#)", html)


def test_every_figure_says_in_words_what_it_shows(page):
    figures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(figures) == sum(tag == "figure" for tag, _ in page.elements) >= 10
    assert all(len(attributes["aria-label"]) > 30 and attributes["role"] == "img" for attributes in figures)


def test_no_two_elements_share_an_identifier(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes.get("href") or "" for _, attributes in page.elements]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)


def test_figures_take_the_color_of_the_page_and_it_knows_light_dark_and_paper(html):
    assert "currentColor" in html
    assert "#0b0c0d" not in html
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html


@pytest.mark.slow
def test_the_page_is_small_even_for_many_neurons(sweep):
    page = write_report(sweep(neurons=3000, stimuli=2, frames=4, animals=1, seeds=2))
    assert page.stat().st_size < 1_000_000
    assert "data:image/png;base64," in page.read_text(), "many neurons are drawn as an image"


@pytest.mark.slow
def test_words_from_files_stay_words(hostile):
    html = write_report(hostile).read_text()
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert HOSTILE in page.said(), "the name is shown as it is written"
    assert "default-src 'none'" in html


def test_words_from_files_stay_words_in_markdown(hostile):
    text = write_report(hostile, "md").read_text()
    assert not re.search(r"(?<!\\)<", text), "no tag begins anywhere"
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) > 5
    for rows in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, "a | in a name makes no cell"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seeds": 1}, "1 seed cannot tell a design from luck in training"),
        pytest.param({"noise": {"none": 0.5}}, "There is one arm only", marks=pytest.mark.slow),
        ({"repeats": 1}, "Not split by SNR"),
        ({"failed": ("pool",)}, "RuntimeError: out of memory"),
        pytest.param({"failed": ("none", "pool")}, "4 of 4 runs failed", marks=pytest.mark.slow),
        pytest.param({"failed": ("none",)}, "'none' has no dev-test scores", marks=pytest.mark.slow),
        ({"status": "interrupted", "scored": False}, "The sweep is interrupted"),
        pytest.param({"status": None, "scored": False}, "The sweep is running", marks=pytest.mark.slow),
        pytest.param({"positions": False}, "Positions were not recorded", marks=pytest.mark.slow),
        pytest.param(
            {"information": {"pool": "recorded_past"}}, "information contrast: not ranked", marks=pytest.mark.slow
        ),
        pytest.param({"tiers": ("dev_test", "final_test")}, "It was unlocked once", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_that_lacks_something_has_a_page_that_says_so(sweep, settings, said):
    folder = sweep(**{"animals": 2, "stimuli": 3, "frames": 6, "trials": 2, "positions": False, **settings})
    assert said in Page(write_report(folder).read_text()).said()
    assert write_report(folder, "md").read_text().startswith("# Does a population pool help?")
    json.loads(write_report(folder, "json").read_text())
    shown = io.StringIO()
    Console(file=shown, width=100).print(table(analyse(folder)))
    assert "none" in shown.getvalue()


def test_markdown_holds_verdicts_and_tables(whole):
    text = write_report(whole, "md").read_text()
    assert "## Verdicts" in text
    assert "Supported for animals like these: difference" in text.replace("\\", "")
    header = next(line for line in text.splitlines() if line.startswith("| arm | trials"))
    row = next(line for line in text.splitlines() if line.startswith("| pool |"))
    assert header.count("|") == row.count("|")


def test_json_is_the_findings(whole):
    found = json.loads(write_report(whole, "json").read_text())
    assert found == json.loads(json.dumps(analyse(whole).as_dict()))


@pytest.mark.slow
def test_reports_are_the_same_when_written_twice(whole, html):
    assert write_report(whole).read_text() == html


def test_reports_lie_beside_the_sweep_and_leave_no_draft(whole):
    assert write_report(whole, "md") == whole / "report.md"
    assert not list(whole.glob("*.tmp"))


def test_an_unknown_format_is_refused(whole):
    with pytest.raises(ValueError, match="got format 'pdf'; expected one of html, md, json"):
        write_report(whole, "pdf")


def test_the_terminal_table_fits_80_columns_and_is_plain_text_in_a_file(whole):
    shown = io.StringIO()
    Console(file=shown, width=80).print(table(analyse(whole)))
    lines = shown.getvalue().splitlines()
    assert "\x1b" not in shown.getvalue()
    (pool,) = [line for line in lines if line.startswith("pool")]
    assert re.fullmatch(r"pool\s+4(\s+\.\d{3}){7} \+\.\d{4} supported\s*", pool)
    assert any(line.startswith("none") and "reference" in line for line in lines)


def test_an_arm_named_like_markup_is_printed_as_it_is(hostile):
    shown = io.StringIO()
    Console(file=shown, width=120).print(table(analyse(hostile)))
    assert "[red]" in shown.getvalue()
