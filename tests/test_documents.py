"""README and docs say what is true of the code."""

from __future__ import annotations

import doctest
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.core import TyperGroup
from typer.main import get_command

from kdal.cli.main import app
from kdal.labelstudio.formats import FORMATS, format_for
from kdal.policy import Policy, usable_strategies
from kdal.settings import Settings
from kdal_core.acquisition import PoolScores

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
VARIABLES = {
    field.validation_alias if isinstance(field.validation_alias, str) else f"KDAL_{name.upper()}"
    for name, field in Settings.model_fields.items()
}


def test_the_policy_page_names_each_key_of_the_policy_and_no_other() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "policy.md").read_text(), re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(Policy.model_fields)


def test_the_policy_page_names_each_strategy_that_a_policy_may_name_and_no_other() -> None:
    row = re.search(r"^\| `strategy` .*$", (ROOT / "docs" / "policy.md").read_text(), re.MULTILINE)
    assert row is not None
    assert set(re.findall(r"`(\w+)`", row[0])) - {"strategy"} == set(usable_strategies())


@pytest.mark.parametrize("page", ["README.md", "docs/labelling.md"])
def test_the_pages_on_labelling_configs_name_each_tag_that_is_served(page: str) -> None:
    rows = re.findall(r"^\|.*`<\w+>`.*$", (ROOT / page).read_text(), re.MULTILINE)
    assert {tag for row in rows for tag in re.findall(r"`<(\w+)>`", row)} == {form.tag for form in FORMATS.values()}


def test_the_readme_names_variables_that_exist_and_all_that_matter_to_an_operator() -> None:
    named = set(re.findall(r"`((?:KDAL|LABEL_STUDIO)_[A-Z_]+)`", README.partition("## Settings")[2].partition("##")[0]))
    assert named <= VARIABLES | {"KDAL_LOCAL_FILES_ROOT"}
    assert VARIABLES - named <= {"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"}


def test_the_readme_says_in_two_screens_how_to_start() -> None:
    start = README.partition("## Settings")[0]
    assert start.count("\n") <= 110
    for command in ("make demo", "make test", "kdal up", "kdal up --host", "kdal connect", "kdal status"):
        assert command in start, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_make_targets_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^    )make ([a-z][\w-]*)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(((?!https?://)[^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), link
        assert not anchor or anchor in _anchors(linked), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_commands_and_options_that_kdal_has(page: Path) -> None:
    kdal = get_command(app)
    assert isinstance(kdal, TyperGroup)
    text = page.read_text()
    said = re.findall(r"(?:^    |`|exec kdal )kdal ([a-z]+)\b([^`\n#]*)", text, re.MULTILINE)
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        said += re.findall(r"^kdal ([a-z]+)\b([^\n#]*)", block, re.MULTILINE)
    for name, rest in said:
        assert name in kdal.commands, name
        command = kdal.commands[name]
        commands = [command, *(command.commands.values() if isinstance(command, TyperGroup) else [])]
        known = {option for one in commands for parameter in one.params for option in parameter.opts}
        assert set(re.findall(r"(--[a-z-]+)", rest)) <= known | {"--help"}, f"kdal {name}{rest}"


def _anchors(page: Path) -> set[str]:
    """The headings of a Markdown page as links name them: small letters, no punctuation, hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_comments_name_pages_of_the_docs_that_exist() -> None:
    for file in [*(ROOT / "kdal_core").rglob("*.py"), *(ROOT / "backend").rglob("*.py")]:
        for named in re.findall(r"docs/[\w/-]+\.md", file.read_text()):
            assert (ROOT / named).exists(), f"{file}: {named}"


def test_the_contributors_guide_names_files_that_exist() -> None:
    named = re.findall(r"`((?:kdal_core|backend|tests|requirements|docs|benchmarks)/[^`<>*]*)`", GUIDE)
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_contributors_guides_strategy_ranks_a_pool() -> None:
    (source,) = [code for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "STRATEGY =" in code]
    module: dict[str, Any] = {}
    exec(source, module)
    pool = PoolScores(features=np.array([[0.0, 0.0], [9.0, 0.0], [1.0, 0.0], [-4.0, 0.0]]))
    assert module["STRATEGY"](pool).indices.tolist() == [1, 3, 0, 2]


def test_the_contributors_guides_format_reads_and_writes_its_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,) = [code for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "FORMAT =" in code]
    (tmp_path / "guide_rating.py").write_text(source)
    about = tmp_path / "guide_rating-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: guide-rating\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[kdal.formats]\nrating = guide_rating\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = format_for('<View><Image name="image" value="$url"/><Rating name="stars" toName="image"/></View>')
        region = {"from_name": "stars", "to_name": "image", "type": "rating", "value": {"rating": 4}}
        assert found.target({"id": 1, "annotations": [{"id": 2, "result": [region]}]}) == 3
        (written,) = found.result(np.array([0.1, 0.1, 0.1, 0.6, 0.1]))
        assert written | region == written
        assert (found.image_key, len(found.task().classes), written["score"]) == ("url", 5, 0.6)
    finally:
        sys.modules.pop("guide_rating", None)


def test_the_page_of_strategies_says_what_they_say_of_themselves() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "write_strategies.py"))["page"]
    assert (ROOT / "docs" / "strategies.md").read_text() == page(), "run make docs"


def test_the_policy_reference_is_made_from_the_policy() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "write_policy.py"))["page"]
    assert (ROOT / "docs" / "policy-reference.md").read_text() == page(), "run make docs"
    assert set(re.findall(r"^## (\w+)$", page(), re.MULTILINE)) == set(Policy.model_fields)


def test_the_figures_of_the_concepts_are_drawn(tmp_path: Path) -> None:
    module = runpy.run_path(str(ROOT / "docs" / "write_figures.py"))
    module["main"].__globals__["FOLDER"] = tmp_path
    module["main"]()
    used = set(re.findall(r"pictures/concepts/([\w.]+)", (ROOT / "docs" / "concepts.md").read_text()))
    assert used == {path.name for path in tmp_path.iterdir()}
    assert used == {path.name for path in (ROOT / "docs" / "pictures" / "concepts").iterdir()}


@pytest.mark.parametrize("page", ["methods.md"])
def test_the_examples_of_a_page_give_what_it_says(page: str) -> None:
    found = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert found.attempted > 5
    assert found.failed == 0


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    methods = (tmp_path / "methods.html").read_text()
    assert "<math" in methods
    assert "$" not in re.sub(r"<(script|style|pre|code).*?</\1>", "", methods, flags=re.DOTALL)
    for page in tmp_path.rglob("*.html"):  # it needs nothing from elsewhere
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?://", page.read_text()), page
