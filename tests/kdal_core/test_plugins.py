"""Parts found by name, ours and those of other packages, which stand here as real distributions on `sys.path`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdal_core.acquisition import PoolScores, strategy, strategy_names
from kdal_core.acquisition.strategies import registry
from kdal_core.errors import ConfigError

STRATEGY = '''
import numpy as np
from kdal_core.acquisition import Selection, Strategy

def brightest(pool, *, power=1.0):
    """Largest sum of features first."""
    scores = pool.matrix("features").sum(axis=1) ** power
    order = np.argsort(-scores, kind="stable")
    return Selection(order, scores[order], np.zeros(len(order), dtype=np.int64))

STRATEGY = Strategy("brightest", brightest, frozenset({"features"}), cold=True)
'''


def install(folder: Path, name: str, source: str, *entries: str) -> None:
    """A package of one module, with its dist-info, as pip would put it there."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kdal.strategies]\n" + "\n".join(entries) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("toy_strategy", "toy_other"):
        sys.modules.pop(name, None)


def test_a_strategy_of_another_package_is_known_by_name_and_ranks(site):
    install(site, "toy_strategy", STRATEGY, "brightest = toy_strategy:STRATEGY")
    assert strategy_names()[-1] == "brightest"
    assert "toy_strategy" not in sys.modules  # a name costs no import
    found = strategy("brightest", power=2.0)
    assert (found.name, found.accepts, found.summary) == (
        "brightest",
        ("power",),
        "Largest sum of features first.",
    )
    assert found(PoolScores(features=np.array([[1.0], [3.0], [2.0]]))).indices.tolist() == [1, 2, 0]


def test_a_package_may_name_its_module_instead_and_choose_the_strategys_name(site):
    install(site, "toy_strategy", STRATEGY, "bright = toy_strategy")
    assert strategy("bright").name == "bright"


def test_a_package_that_is_gone_is_forgotten(tmp_path):
    assert "brightest" not in strategy_names()
    with pytest.raises(ConfigError, match="There is no strategy 'brightest'; known: kd_gap, random"):
        strategy("brightest")


@pytest.mark.parametrize(
    ("source", "entry", "message"),
    [
        ("STRATEGY = 3", "bad = toy_strategy:STRATEGY", "of toy_strategy 1.0 must be a Strategy"),
        ("", "bad = toy_strategy", "of toy_strategy 1.0 must be a Strategy"),
        ("raise RuntimeError('no licence')", "bad = toy_strategy", "of toy_strategy 1.0 cannot be loaded.*no licence"),
        ("", "bad = toy_strategy:missing", "of toy_strategy 1.0 cannot be loaded.*missing"),
    ],
)
def test_a_package_that_is_broken_says_whose_fault_it_is_and_harms_no_other_name(site, source, entry, message):
    install(site, "toy_strategy", source, entry)
    assert "bad" in strategy_names()
    assert strategy("entropy").name == "entropy"
    with pytest.raises(ConfigError, match=message):
        strategy("bad")


def test_a_name_that_is_offered_twice_is_refused_with_who_offers_it(site):
    install(site, "toy_strategy", STRATEGY, "entropy = toy_strategy", "bright = toy_strategy")
    install(site, "toy_other", STRATEGY, "bright = toy_other")
    assert len(strategy_names()) == len(set(strategy_names()))
    with pytest.raises(ConfigError, match=r"'entropy' is offered by kdal, toy_strategy 1\.0: uninstall or rename"):
        strategy("entropy")
    with pytest.raises(ConfigError, match=r"toy_\w+ 1\.0, toy_\w+ 1\.0"):
        strategy("bright")


def test_every_file_that_defines_a_strategy_is_found_under_its_own_name():
    folder = Path(registry.__file__).parent
    defining = {file.stem for file in folder.glob("*.py") if "\nSTRATEGY = Strategy(" in file.read_text()}
    assert set(registry.names()) == defining
    assert all(strategy(name).name == name and strategy(name).summary.endswith(".") for name in defining)


def test_names_parameters_and_needs_are_known_without_the_numerical_libraries():
    """A command line that checks a policy has to start at once."""
    code = (
        "import sys\n"
        "import kdal_core.models, kdal_core.tasks.box, kdal_core.tasks.lane, kdal_core.training\n"
        "import kdal_core.distillation.ledger, kdal_core.metrics\n"
        "from kdal_core.acquisition import cold_start, greedy_select, strategy, strategy_names\n"
        "assert all(strategy(name).needs is not None and strategy(name).accepts is not None "
        "for name in strategy_names())\n"
        "print(*sorted({'torch', 'torchvision', 'sklearn', 'scipy.optimize', 'scipy.linalg', 'faiss'} "
        "& set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
