"""A folder of boxes goes into a real Label Studio and comes out as it was, but for what people changed there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from kdal.demo.examples.blood_cells import KINDS, SIZE, render
from kdal.processes.embedded import EmbeddedLabelStudio
from kdal_core.datasets import BOX_FOLDERS, BoxScene, Mark
from tests.forked import run_kdal
from tests.integration.harness import Api

HEIGHT, WIDTH = SIZE


def fill(folder: Path, form: str) -> None:
    """Three pictures and their boxes in whole pixels; the first has a box without size besides."""
    scenes = []
    for number in range(3):
        smear = render(number)
        path = folder / f"images/train/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smear.image).save(path)
        marks = []
        for cell in smear.cells:
            left, top, right, bottom = (round(side) for side in cell.box)
            marks.append(Mark(KINDS[cell.kind], (left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT)))
        if number == 0:
            marks.append(Mark(KINDS[0], (0.5, 0.5, 0.5, 0.75)))
        scenes.append(BoxScene(f"images/train/{number}.png", tuple(marks), size=(WIDTH, HEIGHT)))
    BOX_FOLDERS[form].write(scenes, folder)


def texts(folder: Path) -> dict[str, str]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_a_folder_of_boxes_comes_back_from_label_studio_as_it_went_in_but_for_a_box_that_was_moved(
    form: str, label_studio: EmbeddedLabelStudio, ls_api: Api, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": label_studio.token,
        "KDAL_HOME": str(tmp_path / "kdal"),
    }

    def kdal(*arguments: object) -> str:
        done = run_kdal(*map(str, arguments), env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / form
    fill(folder, form)
    project = ls_api.post("/api/projects/", {"title": f"Boxes in {form}"})["id"]
    try:
        assert "3 images" in kdal("import", folder, "--project", project)
        assert "0 images" in kdal("import", folder, "--project", project)
        kdal("export", tmp_path / "again", "--project", project, "--format", form)
        before, after = texts(folder), texts(tmp_path / "again")
        assert {k: json.loads(v) if form == "coco" else v for k, v in after.items()} == {
            k: json.loads(v) if form == "coco" else v for k, v in before.items()
        }

        task = min(ls_api.get("/api/tasks/", project=project, fields="all")["tasks"], key=lambda task: task["id"])
        (annotation,) = task["annotations"]
        annotation["result"][0]["value"] |= {"x": 10, "y": 20, "width": 30, "height": 40}
        ls_api.patch(f"/api/annotations/{annotation['id']}/", {"result": annotation["result"]})
        kdal("export", tmp_path / "moved", "--project", project, "--format", form)
        for name in ("0", "1", "2"):
            image = f"images/train/{name}.png"
            assert (tmp_path / "moved" / image).read_bytes() == (folder / image).read_bytes()
        first, *others = sorted(BOX_FOLDERS[form].read(tmp_path / "moved", ()), key=lambda scene: scene.path)
        was, *rest = sorted(BOX_FOLDERS[form].read(folder, ()), key=lambda scene: scene.path)
        assert first.marks is not None
        assert was.marks is not None
        assert first.marks[0].corners == pytest.approx((0.1, 0.2, 0.4, 0.6), abs=1e-6)
        assert [mark.corners for mark in first.marks[1:]] == [mark.corners for mark in was.marks[1:]]
        assert [[m.corners for m in scene.marks or ()] for scene in others] == [
            [m.corners for m in scene.marks or ()] for scene in rest
        ]
    finally:
        ls_api.delete(f"/api/projects/{project}/")
