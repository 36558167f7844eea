"""Write docs/strategies.md from the strategies themselves: `make docs`."""

from __future__ import annotations

from pathlib import Path

from kdal_core.acquisition.strategies.registry import STRATEGIES

HEAD = """# Strategies

Each orders a pool of images; the first ones are worth a label most. Name one in a project's [policy](policy.md), in
a [campaign](simulate.md), or in Python: `kdal_core.acquisition.strategy("margin")`. Its paper, and where kdal departs
from it, stand in its docstring, in `kdal_core/acquisition/strategies/<name>.py`. You can
[add one](../CONTRIBUTING.md#a-new-strategy).

This page is written by `make docs`.

| name | what it does | reads | parameters | orders without any label |
|---|---|---|---|---|
"""


def page() -> str:
    """The page, with a row for each strategy that comes with kdal."""
    rows = []
    for name in STRATEGIES.names():
        found = STRATEGIES[name]
        reads, accepts = (", ".join(f"`{part}`" for part in parts) for parts in (sorted(found.needs), found.accepts))
        if found.uses:
            reads += "; where given " + ", ".join(f"`{part}`" for part in sorted(found.uses))
        summary = found.summary.replace("|", r"\|")
        rows.append(f"| `{name}` | {summary} | {reads} | {accepts} | {'yes' if found.cold else 'no'} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    Path(__file__).with_name("strategies.md").write_text(page())
