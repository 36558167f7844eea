import pytest
import yaml

from kdal_core.errors import ConfigError
from kdal_core.simulation import shipped_campaigns
from kdal_core.simulation.mixup import find_grid, shipped_grids
from tests.kdal_core.simulation.mixup.conftest import SMALL


def test_each_shipped_grid_is_found_by_its_name_and_says_what_it_is():
    grids = shipped_grids()
    assert {"mixup_grid", "mixup_out_of_domain", "mixup_photos"} == set(grids)
    assert not set(grids) & set(shipped_campaigns())
    for name, grid in grids.items():
        assert find_grid(name) == grid
        assert grid.description
        assert "random" in grid.choices


def test_a_file_says_by_its_kind_that_it_is_a_grid(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    assert find_grid(str(path)).cells == 24
    path.write_text(yaml.safe_dump({"name": "x", "data": {"name": "digits"}}))
    assert find_grid(str(path)) is None
    assert find_grid("digits") is None


def test_the_columns_are_the_stages_of_one_run(small):
    assert small().mixup_config("random", 3).training.plan(10**6) == [10, 20]


def test_the_published_choice_looks_at_all_candidates_and_kdals_at_few(small):
    grid = small()
    assert grid.mixup_config("published", 0).looked_at(20) == 50
    assert grid.mixup_config("active", 0).looked_at(20) == 25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixes": [5, 10]}, "begin with 0"),
        ({"mixes": [0, 10, 10]}, "grow"),
        ({"mixes": []}, "begin with 0"),
        ({"mixes": [0, 67]}, "66 pairs"),
        ({"real": [1, 24]}, "at least 2"),
        ({"real": [12, 12]}, "real must all be different"),
        ({"seeds": [0, 0]}, "seeds must all be different"),
        ({"choices": ["oracle"]}, "choices"),
        ({"training": {"epoch": 3}}, "epoch"),
        ({"teacher": {"training": {"lr": -1}}}, "lr"),
        ({"student_net": "lenet5"}, "student_net"),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused_by_name(change, message, small):
    with pytest.raises(ConfigError, match=message):
        small(**change)
