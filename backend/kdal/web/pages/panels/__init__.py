"""The panels of a project's page, one file each, in the order of the page."""

from __future__ import annotations

from kdal.web.pages.panels import health, now, timeline
from kdal.web.pages.view import Panel

PANELS: dict[str, Panel] = {panel.name: panel for panel in (now.PANEL, health.PANEL, timeline.PANEL)}
