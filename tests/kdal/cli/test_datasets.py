import io

import pytest
from PIL import Image
from rich.console import Console

from kdal.cli.datasets import run_export, run_import
from kdal_core.datasets import LaneScene, write_culane
from kdal_core.errors import ConfigError, LabelFormatError


@pytest.fixture
def culane(tmp_path):
    """A folder of two images without lanes, of which one is not there."""
    folder = tmp_path / "culane"
    write_culane([LaneScene("a.png", ()), LaneScene("b.png", ())], folder)
    Image.new("RGB", (8, 4)).save(folder / "a.png")
    return folder


@pytest.fixture
def out():
    return Console(file=io.StringIO(), width=200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "kitti"}, "there is no format 'kitti', only tusimple, culane, coco, voc, yolo"),
        ({"labels": "everything"}, "labels can become annotations, predictions, none, not 'everything'"),
        ({"folder": "nothing"}, "nothing: no such folder"),
        ({"form": "tusimple"}, "no TuSimple labels here"),
        ({"lists": ["list/absent.txt"]}, "cannot be read"),
    ],
)
def test_an_import_that_cannot_be_is_refused_before_label_studio_is_asked(make_settings, culane, out, change, message):
    options = {"folder": str(culane), "form": None, "labels": "annotations", "lists": ()} | change
    folder = culane.parent / options.pop("folder")
    with pytest.raises(ConfigError, match=message):
        run_import(make_settings(), 3, folder, options.pop("form"), out, options.pop("labels"), **options)


def test_a_folder_of_damaged_labels_alone_is_refused_before_label_studio_is_asked(make_settings, culane, out):
    (culane / "list").mkdir()
    (culane / "list/all.txt").write_text("../a.png\n")
    with pytest.raises(LabelFormatError, match=r"list/all\.txt:1"):
        run_import(make_settings(), 3, culane, None, out, "annotations", lists=["list/all.txt"])


def test_an_export_writes_over_nothing(make_settings, culane, out):
    with pytest.raises(ConfigError, match="it is not empty"):
        run_export(make_settings(label_studio_url="http://127.0.0.1:1"), 3, culane, "culane", out)
    with pytest.raises(ConfigError, match="there is no format 'kitti'"):
        run_export(make_settings(), 3, culane, "kitti", out)
