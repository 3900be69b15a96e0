"""Tables of the report in Markdown."""

from neuroint.report.markdown import _table
from neuroint.report.tables import Table


def test_the_rule_below_a_header_is_no_text_and_what_comes_from_files_is_no_rule():
    table = Table("arms", ["arm", "score"], [["a|b", "---"]])
    assert _table(table).splitlines()[2:] == ["| arm | score |", "| --- | --- |", "| a\\|b | \\--- |"]
