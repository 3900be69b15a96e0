"""``benchmarks/pages.py``: a benchmark replaces its own section of a page, and nothing else."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import pages

MARKED = "before\n<!-- a begin -->\nold\n<!-- a end -->\nbetween\n<!-- b begin -->\nkept\n<!-- b end -->\n"


def test_a_section_is_replaced_with_the_command_that_made_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKED)
    pages.put(page, "a", "python it.py", "| new |", about="3 draws")
    first = re.search(r"<!-- a begin -->\n(.*)\n", page.read_text())
    assert first
    assert re.fullmatch(r"`python it.py`, commit [0-9a-z]{7}(-dirty)?, \d{4}-\d\d-\d\d, 3 draws\.", first[1])
    assert page.read_text() == MARKED.replace("old", f"{first[1]}\n\n| new |")


def test_a_page_without_the_marks_is_refused_and_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKED)
    with pytest.raises(ValueError, match=r"page.md needs the marks <!-- c begin --> and <!-- c end --> once each"):
        pages.put(page, "c", "python it.py", "text")
    assert page.read_text() == MARKED
