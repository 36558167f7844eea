"""What people see of a campaign: pages, plots and sentences, apart from what computes them."""

from kdal_core.simulation.report.headline import headline
from kdal_core.simulation.report.pages import cards, markdown, page, summary_json, templates, write_report

__all__ = ["cards", "headline", "markdown", "page", "summary_json", "templates", "write_report"]
