"""The project page, `KDAL_URL/projects`: what kdal does for a project, whether it pays off, and the wheel."""

from kdal.web.pages.blueprint import HOME, add_pages

__all__ = ["HOME", "add_pages"]
