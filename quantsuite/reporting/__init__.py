"""Records to Markdown, HTML and the terminal."""

from quantsuite.reporting.pages import write_report
from quantsuite.reporting.terminal import gate_summary, scheme_line, terminal_summary

__all__ = ["gate_summary", "scheme_line", "terminal_summary", "write_report"]
