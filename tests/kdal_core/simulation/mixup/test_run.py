import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kdal_core.errors import ConfigError
from kdal_core.simulation.mixup import read_cells, run_grid
from kdal_core.simulation.mixup.grid import parse_grid
from kdal_core.simulation.mixup.run import CELLS
from tests.kdal_core.simulation.mixup.conftest import SMALL


class Killed(BaseException):
    """As if the process had been killed."""


def table(cells):
    """What was measured, without the time that it took."""
    return {cell.key: (cell.accuracy, cell.agreement) for cell in cells}


def killed_after(count):
    def progress(done, total, last):
        if done == count:
            raise Killed

    return progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A grid that was run to its end: its folder, the teacher's accuracy and the cells."""
    grid, out = parse_grid(SMALL), tmp_path_factory.mktemp("whole")
    seen = []
    teacher, cells = run_grid(grid, out, progress=lambda *at: seen.append(at))
    return grid, out, teacher, cells, seen


def test_each_cell_is_there_once_and_is_told_when_it_is_finished(whole):
    grid, out, teacher, cells, seen = whole
    assert len(table(cells)) == len(cells) == grid.cells == 24
    assert [at[:2] for at in seen] == [(done, 24) for done in range(1, 25)]
    assert teacher > 0.5
    assert read_cells(grid, out) == (teacher, cells)
    assert len((out / CELLS).read_text().splitlines()) == 25
    assert not list((out / "runs").iterdir())


def test_without_a_mix_the_choice_makes_no_difference(whole):
    found = table(whole[3])
    for real in (12, 24):
        for seed in (0, 1):
            assert found[real, "published", seed, 0] == found[real, "random", seed, 0]
    assert found[12, "random", 0, 0] != found[24, "random", 0, 0]


@pytest.mark.parametrize("count", [1, 5])
def test_a_killed_grid_goes_on_to_the_same_table(count, whole, small, tmp_path):
    grid = small(seeds=[0])
    shutil.copy(whole[1] / "teacher.safetensors", tmp_path)
    with pytest.raises(Killed):
        run_grid(grid, tmp_path, progress=killed_after(count))
    with (tmp_path / CELLS).open("a") as file:
        file.write('{"real": 12, "mi')  # a line that was being written
    _, before = read_cells(grid, tmp_path)
    assert count <= len(before) < grid.cells
    _, cells = run_grid(grid, tmp_path)
    assert cells[: len(before)] == before
    assert table(cells) == {key: value for key, value in table(whole[3]).items() if key[2] == 0}


def test_a_grid_grows_by_rows_and_seeds_without_computing_a_cell_twice(whole, small, tmp_path):
    shutil.copytree(whole[1], tmp_path / "grown")
    before = (tmp_path / "grown" / CELLS).read_text()
    told = []
    _, cells = run_grid(small(real=[12, 24, 30]), tmp_path / "grown", progress=lambda *at: told.append(at[0]))
    assert told == list(range(25, 37))
    assert len(cells) == 36
    assert (tmp_path / "grown" / CELLS).read_text().startswith(before)
    assert len(read_cells(small(real=[30], seeds=[1]), tmp_path / "grown")[1]) == 6


def test_cells_of_other_settings_are_refused_and_left_alone(whole, small, tmp_path):
    shutil.copytree(whole[1], tmp_path / "other")
    before = (tmp_path / "other" / CELLS).read_text()
    with pytest.raises(ConfigError, match="other settings"):
        run_grid(small(mixes=[0, 10, 40]), tmp_path / "other")
    assert (tmp_path / "other" / CELLS).read_text() == before
    run_grid(small(mixes=[0, 10], real=[12], seeds=[0], choices=["random"]), tmp_path / "other", fresh=True)
    assert len((tmp_path / "other" / CELLS).read_text().splitlines()) == 3


def test_cells_of_another_teacher_are_not_added_to(whole, small, tmp_path):
    shutil.copytree(whole[1], tmp_path / "other")
    (tmp_path / "other" / "teacher.safetensors").unlink()
    lines = (tmp_path / "other" / CELLS).read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "teacher": 0.123})
    (tmp_path / "other" / CELLS).write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=r"right in 12\.30%.*Bring back its teacher"):
        run_grid(small(), tmp_path / "other")


@pytest.mark.parametrize("line", ["no JSON", '{"real": 12}', json.dumps({"accuracy": 7})])
def test_a_damaged_file_is_refused_by_name(line, whole, small, tmp_path):
    shutil.copytree(whole[1], tmp_path / "damaged")
    with (tmp_path / "damaged" / CELLS).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ConfigError, match=r"cells\.jsonl.*damaged"):
        run_grid(small(), tmp_path / "damaged")


def test_more_real_images_than_there_are_are_refused_before_anything_is_computed(small, tmp_path):
    with pytest.raises(ConfigError, match="1,197"):
        run_grid(small(real=[1300]), tmp_path)
    assert not list(tmp_path.iterdir())


def photos(root, folder, images, labels):
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Real digits as image files, zeros and ones: a data set to be taught, and one of sevens and eights."""
    pixels, labels = load_digits(return_X_y=True)
    root, pixels = tmp_path_factory.mktemp("data"), pixels.reshape(-1, 8, 8)
    for name, wanted in (("own", (0, 1)), ("others", (7, 8))):
        places = np.flatnonzero(np.isin(labels, wanted))
        photos(root / name, "train", pixels[places[:24]], labels[places[:24]])
        photos(root / name, "test", pixels[places[24:40]], labels[places[24:40]])
    return root


def test_images_out_of_the_teachers_domain_teach_its_classes(small, folders, tmp_path):
    of = {"name": "folder", "image_size": 8}
    grid = small(
        data={**of, "root": "own"},
        images={**of, "root": "others"},
        mixes=[0, 20],
        real=[12],
        seeds=[0],
        choices=["active"],
    )
    _, cells = run_grid(grid, tmp_path / "others", data=folders)
    _, own = run_grid(grid.model_copy(update={"images": None}), tmp_path / "own", data=folders)
    assert len(cells) == len(own) == 2
    assert table(cells) != table(own)
    with pytest.raises(ConfigError, match="one image_size for both"):
        run_grid(
            grid.model_copy(update={"images": grid.images.model_copy(update={"image_size": 12})}),
            tmp_path,
            data=folders,
        )


def test_heads_on_pretrained_backbones_teach_and_learn(small, folders, tmp_path):
    grid = small(
        data={"name": "folder", "root": "own", "image_size": 8},
        student="frozen/mobilenet_v2",
        teacher={"model": "frozen/tf_efficientnet_lite0"},
        real=[8],
        mixes=[0, 4, 8],
        seeds=[0],
        choices=["active", "random"],
        lambdas=[0.5],
    )
    teacher, cells = run_grid(grid, tmp_path, data=folders)
    assert teacher >= 0.9
    assert len(cells) == 6
    assert max(cell.accuracy for cell in cells) >= 0.8
    assert (tmp_path / "teacher.safetensors").stat().st_size < 50_000  # the head alone
    (tmp_path / CELLS).unlink()
    again, _ = run_grid(grid.model_copy(update={"choices": ("random",)}), tmp_path, data=folders)
    assert again == teacher
