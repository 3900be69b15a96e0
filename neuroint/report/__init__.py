"""A finished sweep -> findings, a page, a table."""

from neuroint.report.analysis import analyse
from neuroint.report.findings import Findings
from neuroint.report.neurons import write_neurons
from neuroint.report.tables import table
from neuroint.report.writing import write_report

__all__ = ["Findings", "analyse", "table", "write_neurons", "write_report"]
