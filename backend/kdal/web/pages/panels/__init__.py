"""The panels of a project's page, one file each, in the order of the page."""

from __future__ import annotations

from kdal.web.pages.panels import (
    classes,
    confusion,
    errors,
    health,
    map,
    models,
    now,
    policy,
    quality,
    queue,
    suggestions,
    timeline,
    unusable,
)
from kdal.web.pages.view import Panel

PANELS: dict[str, Panel] = {
    panel.name: panel
    for panel in (
        now.PANEL,
        health.PANEL,
        quality.PANEL,
        queue.PANEL,
        suggestions.PANEL,
        classes.PANEL,
        errors.PANEL,
        confusion.PANEL,
        map.PANEL,
        models.PANEL,
        timeline.PANEL,
        policy.PANEL,
        unusable.PANEL,
    )
}
