"""The lock files hold what pyproject.toml asks for: exact versions, each with its hashes, and no addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDER = ROOT / "requirements"
LOCKS = {path.stem: path for path in FOLDER.glob("*.txt")}
EXTRAS = {
    "kdal": ["server", "postgres"],
    "test": ["server", "postgres", "export", "dev"],
    "label-studio-ml": ["label-studio-ml"],
}
"""Which extras a lock installs, besides kdal's own dependencies."""


def locked(path: Path) -> dict[str, list[Version]]:
    """Name -> versions; several where they differ between systems or versions of Python."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


@pytest.mark.parametrize("name", EXTRAS)
def test_whatever_pyproject_asks_for_is_locked_in_a_version_that_it_allows(name: str) -> None:
    versions = locked(LOCKS["torch"]) | locked(LOCKS[name])
    build = [line for line in (FOLDER / "build.in").read_text().splitlines() if not line.startswith("#")]
    extras = [line for extra in EXTRAS[name] for line in PROJECT["optional-dependencies"][extra]]
    for line in [*PROJECT["dependencies"], *extras, *build]:
        requirement = Requirement(line)
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{line} is not in requirements/{name}.txt: run make lock"
        for version in found:
            assert requirement.specifier.contains(version, prereleases=True), (
                f"{line} does not allow {version} of requirements/{name}.txt: run make lock"
            )


@pytest.mark.parametrize("name", ["kdal", "test"])
def test_what_comes_with_pytorch_is_locked_apart_and_in_the_same_versions(name: str) -> None:
    torch, others = locked(LOCKS["torch"]), locked(LOCKS[name])
    assert {"torch", "torchvision"} <= set(torch)
    assert not [package for package in others if re.match(r"torch$|torchvision$|triton$|nvidia-|cuda-", package)]
    # The rest of what PyTorch needs stands in both: pip would exchange one version for the other.
    assert all(others[package] == torch[package] for package in set(torch) & set(others))


def test_the_image_and_the_tests_have_the_same_versions() -> None:
    image, tests = locked(LOCKS["kdal"]), locked(LOCKS["test"])
    assert {package: tests.get(package) for package in image} == image


@pytest.mark.parametrize("path", LOCKS.values(), ids=LOCKS)
def test_each_locked_package_has_hashes_and_no_file_names_a_machine(path: Path) -> None:
    text = path.read_text()
    entries = re.findall(r"^[A-Za-z0-9].*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(entries) > (2 if path.stem == "weights" else 30)
    for entry in entries:
        assert re.match(r"\S+==\S+( ;.*)? \\\n", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"https?://|file:|--(extra-)?index-url (?!<)|--find-links|/(opt|work|root|home|tmp)/", text)
