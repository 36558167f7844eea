"""Numbers and times as people read them; the templates' filters."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from kdal.logs import printable, redacted
from kdal.storage.tables import now

LONGEST = 2000
"""Characters of a text that is shown: a message may quote whatever somebody has typed."""
STEPS = {
    "waiting": "waiting for a worker",
    "snapshot": "reading labels and tasks",
    "features": "looking at the images",
    "ask": "asking the teacher",
    "train heads": "training",
    "fine-tune": "training the whole student",
    "train S and T": "training student and teacher",
    "train student": "training the student",
    "train S-KD": "distilling the student",
    "promote": "comparing the new model with the serving one",
    "score": "scoring the pool",
    "select": "choosing the next batch",
    "publish": "sending the order to Label Studio",
    "activate": "opening the round",
    "clean up": "removing the old order",
}
"""A round's steps, in their order, in words."""
TRIGGERS = {
    "connect": "the project was connected",
    "budget": "the batch was full",
    "button": "somebody pressed Start training",
    "tasks": "new tasks came",
    "models": "a model was chosen",
}
"""Why a round began."""


def lasting(seconds: float | timedelta) -> str:
    """A duration: no more than two units.

    >>> lasting(4.2), lasting(75), lasting(3600 * 5 + 120), lasting(86400 * 3.5)
    ('4 s', '1 min 15 s', '5 h 2 min', '3 days 12 h')
    """
    whole = round(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    if whole < 60:
        return f"{max(0, whole)} s"
    if whole < 600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 3600:
        return f"{round(whole / 60)} min"
    if whole < 86400:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = whole // 86400, whole % 86400 // 3600
    return f"{days} day{'s' if days > 1 else ''}" + (f" {hours} h" if hours else "")


def ago(when: datetime) -> str:
    """How long ago, in words that do not change every second.

    >>> ago(now() - timedelta(seconds=20)), ago(now() - timedelta(minutes=90))
    ('just now', '1 h ago')
    """
    seconds = (now() - when).total_seconds()
    for unit, size in (("day", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''} ago"
    return "just now"


def clock(when: datetime) -> str:
    """A moment for tooltips, in UTC: "2026-11-28 14:57 UTC"."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def share(value: float | None, digits: int = 1) -> str:
    """A share as a percentage.

    >>> share(0.9123), share(None)
    ('91.2%', '–')
    """
    return "–" if value is None else f"{value:.{digits}%}"


def thousands(value: float | None) -> str:
    """A number with its thousands set apart by thin spaces.

    >>> thousands(100000), thousands(None)
    ('100\u202f000', '–')
    """
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def plain(text: Any) -> str:
    """A message for people as it may be shown to anyone who may see the page; the template escapes its markup."""
    shown = printable(redacted(str(text)))
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def sentences(text: Any) -> str:
    """The same as one or more whole sentences.

    >>> sentences("no such file"), sentences("Done.")
    ('No such file.', 'Done.')
    """
    shown = plain(text).strip()
    shown = shown[:1].upper() + shown[1:] if re.match(r"(?!kdal\b)[a-z]+ ", shown) else shown
    return shown if not shown or shown.endswith((".", "!", "?", "…", ":")) else f"{shown}."


def plural(count: float, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> plural(1, "label"), plural(1200, "label"), plural(0, "class", "classes")
    ('1 label', '1\u202f200 labels', '0 classes')
    """
    return f"{thousands(count)} {one if count == 1 else many or one + 's'}"


FILTERS = {
    "lasting": lasting,
    "ago": ago,
    "clock": clock,
    "share": share,
    "thousands": thousands,
    "plain": plain,
    "sentences": sentences,
    "plural": plural,
}
