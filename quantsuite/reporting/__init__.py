"""Records to Markdown, HTML and the terminal."""

from quantsuite.reporting.pages import write_report
from quantsuite.reporting.power import assumed
from quantsuite.reporting.terminal import assumed_power, gate_summary, power_summary, scheme_line, terminal_summary

__all__ = [
    "assumed",
    "assumed_power",
    "gate_summary",
    "power_summary",
    "scheme_line",
    "terminal_summary",
    "write_report",
]
