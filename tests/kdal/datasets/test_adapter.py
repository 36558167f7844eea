"""Kinds of folders: ours, and one that another package adds with a single file."""

import sys

import pytest

from kdal.datasets.adapter import ADAPTERS, adapter_of, detect_form, forms
from kdal_core.errors import ConfigError

TOY = '''
"""Pictures sorted into one folder for each class: sorted.txt says which folders."""
from dataclasses import dataclass, field
from kdal.datasets.adapter import Adapter
from kdal.datasets.tasks import PATH, as_task, path_of
from kdal_core.datasets import Folder
from kdal_core.errors import ConfigError
from pydantic import BaseModel

@dataclass(frozen=True)
class Picture:
    path: str
    kind: str
    extra: dict = field(default_factory=dict)
    lists: dict = field(default_factory=dict)
    labelled = True

class Meta(BaseModel):
    form: str = "sorted"

def read(folder, lists=(), note=print):
    names = (folder / "sorted.txt").read_text().split()
    return [Picture(f"{name}/{p.name}", name) for name in names for p in sorted((folder / name).iterdir())]

def write(pictures, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sorted.txt").write_text("".join(f"{name}\\n" for name in sorted({p.kind for p in pictures})))

class SortedAdapter(Adapter):
    forms = {NAME: Folder(read, write)}

    def detect(self, folder):
        return "sorted" if (folder / "sorted.txt").is_file() else None

    def importing(self, drawer, how):
        if drawer.task().kind != "classification":
            raise ConfigError("sorted pictures are imported into <Choices>")
        return drawer

    def exporting(self, drawer):
        return self.importing(drawer, None)

    def label_config(self, scenes):
        choices = "".join(f'<Choice value="{name}"/>' for name in sorted({p.kind for p in scenes}))
        return f'<View><Image name="i" value="$image"/><Choices name="c" toName="i">{choices}</Choices></View>'

    def task_of(self, scene, drawer, address, size, how):
        value = {"choices": [scene.kind]}
        region = {"from_name": "c", "to_name": "i", "type": "choices", "value": value}
        return as_task({drawer.image_key: address, PATH: scene.path}, Meta(), [region], how.labels)

    def scene_of(self, task, drawer, actual, number, how):
        return Picture(path_of(task, drawer.image_key), drawer.task().classes[drawer.target(task)])

ADAPTER = SortedAdapter()
'''


def install(folder, name="sorted"):
    """The package `toy_folders` with its dist-info, as pip would put it there."""
    (folder / "toy_folders.py").write_text(TOY.replace("NAME", repr(name)))
    info = folder / "toy_folders-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-folders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kdal.datasets]\nsorted = toy_folders\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("toy_folders", None)


def test_each_form_of_ours_has_the_adapter_of_its_kind():
    assert ADAPTERS.names() == ("lanes", "boxes")
    assert list(forms()) == ["tusimple", "culane", "coco", "voc", "yolo"]
    assert adapter_of("yolo") is ADAPTERS["boxes"]
    with pytest.raises(ConfigError, match="there is no format 'kitti', only tusimple, culane, coco, voc, yolo"):
        adapter_of("kitti")


def test_a_package_adds_a_kind_of_folders_with_one_file(site, tmp_path):
    install(site)
    folder = tmp_path / "pictures"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat/1.jpg").write_bytes(b"")
    (folder / "sorted.txt").write_text("cat\n")
    assert detect_form(folder) == "sorted"
    (scene,) = adapter_of("sorted").forms["sorted"].read(folder)
    assert (scene.path, scene.kind) == ("cat/1.jpg", "cat")


def test_a_folder_that_no_adapter_knows_is_refused_whoever_is_installed(site, tmp_path):
    install(site)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="neither TuSimple"):
        detect_form(tmp_path / "empty")
    with pytest.raises(ConfigError, match="no such folder"):
        detect_form(tmp_path / "nothing")


def test_two_adapters_of_one_form_are_refused(site):
    install(site, name="coco")
    with pytest.raises(ConfigError, match="'coco' is offered for boxes and for sorted"):
        forms()
