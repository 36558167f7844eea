"""What becomes of a folder in a project: which images come in, which are there already, which are left out by name."""

import io
import json
import shutil

import pytest
from PIL import Image
from rich.console import Console

from kdal.cli.datasets import run_export, run_import
from kdal.datasets.exporter import export_folder
from kdal.datasets.importer import import_folder
from kdal.datasets.tasks import Labels
from kdal.images.loader import ImageLoader
from kdal.labelstudio.accepted import marked
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from kdal_core.datasets import read_coco, read_voc
from kdal_core.errors import ConfigError
from tests.kdal.label_studio import StandInLabelStudio

BOXES = (
    '<View><Image name="i" value="$image"/><RectangleLabels name="b" toName="i"><Label value="cell"/>'
    "</RectangleLabels></View>"
)
XML = (
    "<annotation><filename>{name}</filename><object><name>cell</name><bndbox><xmin>{x}</xmin><ymin>1</ymin>"
    "<xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"
)


@pytest.fixture
def label_studio():
    with StandInLabelStudio() as server:
        yield server


@pytest.fixture
def project(label_studio):
    return label_studio.project(3, BOXES, [])


@pytest.fixture
def import_(label_studio, make_settings):
    """Imports a folder into project 3."""
    client = LabelStudioClient(label_studio.url, "t" * 40)
    images = ImageLoader(make_settings(label_studio_url=label_studio.url), client)

    def run(folder, form="voc", **options):
        return import_folder(client, images, 3, folder, form, **options)

    run.client, run.images = client, images
    return run


def voc(folder, *names, shade=0, x=5):
    """A Pascal VOC folder of images of one shade, a box in each."""
    for name in names:
        (folder / "JPEGImages").mkdir(parents=True, exist_ok=True)
        (folder / "Annotations").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (shade, 0, 0)).save(folder / "JPEGImages" / name)
        stem = name.rpartition(".")[0]
        (folder / f"Annotations/{stem}.xml").write_text(XML.format(name=name, x=x))
    return folder


def paths(project):
    return sorted(task["data"]["path"] for task in project.tasks.values())


# ---------------------------------------------------------------------- which images are there already


def test_an_import_that_is_repeated_changes_nothing(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg", "2.jpg")
    assert (import_(folder).created, import_(folder).present, len(project.tasks)) == (2, 2, 2)


def test_an_import_that_broke_off_goes_on_even_after_the_folder_has_moved(import_, project, label_studio, tmp_path):
    folder = voc(tmp_path / "a", *(f"{n}.jpg" for n in range(130)))
    answers = iter([None, label_studio_down()])
    label_studio.on["POST", "/api/projects/3/import"] = lambda: next(answers, None) if is_json() else None
    with pytest.raises(LabelStudioError):
        import_(folder)
    assert len(project.tasks) == 100
    label_studio.on.clear()
    moved = folder.rename(tmp_path / "elsewhere")
    done = import_(moved)
    assert (done.present, done.created, len(project.tasks)) == (100, 30, 130)


def is_json():
    from flask import request

    return request.is_json


def label_studio_down():
    from flask import Response

    return Response(status=503)


@pytest.mark.parametrize("other", [{"shade": 200}, {"x": 9}, {"shade": 200, "x": 9}])
def test_images_of_another_folder_with_the_same_names_come_in_too(import_, project, tmp_path, other):
    """They are other images, or the same ones with other labels."""
    first, second = voc(tmp_path / "a", "1.jpg", "2.jpg"), voc(tmp_path / "b", "1.jpg", "2.jpg", **other)
    assert (import_(first).created, import_(second).created) == (2, 2)
    assert paths(project) == ["JPEGImages/1.jpg"] * 2 + ["JPEGImages/2.jpg"] * 2
    for folder in (first, second):
        assert (import_(folder).created, import_(folder).present) == (0, 2)


def test_a_label_that_was_mended_does_not_bring_its_image_in_again(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg", "2.jpg")
    import_(folder)
    voc(folder, "1.jpg", x=9)
    assert (import_(folder).present, len(project.tasks)) == (2, 2)


def forget_origins(project):
    """As a kdal imported them that told the path only."""
    for task in project.tasks.values():
        del task["meta"]["kdal"]["origin"]


def test_tasks_that_an_older_kdal_imported_are_known_by_their_image(import_, project, tmp_path):
    first, second = voc(tmp_path / "a", "1.jpg", "2.jpg"), voc(tmp_path / "b", "1.jpg", "2.jpg", shade=200)
    import_(first)
    forget_origins(project)
    assert (import_(first).present, len(project.tasks)) == (2, 2)
    assert (import_(second).created, import_(second).present, len(project.tasks)) == (2, 2, 4)


def test_tasks_of_an_older_kdal_whose_images_cannot_be_read_are_known_by_their_path(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg")
    import_(folder)
    forget_origins(project)
    project.uploads.clear()
    assert (import_(folder).present, len(project.tasks)) == (1, 1)


def test_images_that_label_studio_reads_itself_are_known_by_their_address(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg")
    assert import_(folder, address="s3://one/set/").created == 1
    assert import_(folder, address="s3://one/set").present == 1
    assert import_(folder, address="s3://two/set").created == 1
    addresses = [task["data"]["image"] for task in project.tasks.values()]
    assert addresses == ["s3://one/set/JPEGImages/1.jpg", "s3://two/set/JPEGImages/1.jpg"]
    forget_origins(project)
    assert import_(folder, address="s3://one/set").present == 1


def test_an_image_key_that_is_called_path_keeps_its_address(import_, label_studio, tmp_path):
    project = label_studio.project(3, BOXES.replace("$image", "$path"), [])
    folder = voc(tmp_path / "a", "1.jpg")
    assert (import_(folder).created, import_(folder).present) == (1, 1)
    (task,) = project.tasks.values()
    assert task["data"]["path"].startswith("/data/upload/3/")
    done = export_folder(import_.client, import_.images, 3, tmp_path / "out", "voc")
    assert (done.written, done.left_out) == (1, [])
    assert (tmp_path / "out/JPEGImages/1.jpg").read_bytes() == (folder / "JPEGImages/1.jpg").read_bytes()


def test_what_kdal_has_accepted_is_no_label_to_an_export(import_, project, tmp_path):
    import_(voc(tmp_path / "a", "1.jpg", "2.jpg"))
    first, second = project.tasks.values()
    (annotation,) = first["annotations"]
    annotation["result"] = [marked(region) for region in annotation["result"]]
    done = export_folder(import_.client, import_.images, 3, tmp_path / "out", "voc")
    assert (done.written, done.accepted, done.left_out) == (1, 1, [])
    assert [path.name for path in (tmp_path / "out/JPEGImages").iterdir()] == [second["data"]["path"].split("/")[-1]]


# ---------------------------------------------------------------------- what is left out


def test_what_label_studio_does_not_take_is_left_out_by_name_and_the_rest_comes_in(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg", "2.tif", "3.JPG", "4.tif", "5.png", "6.TIFF")
    done = import_(folder)
    assert paths(project) == ["JPEGImages/1.jpg", "JPEGImages/3.JPG", "JPEGImages/5.png"]
    assert [sentence.partition(":")[0] for sentence in done.left_out] == [
        f"JPEGImages/{n}" for n in ("2.tif", "4.tif", "6.TIFF")
    ]
    assert all("extension is not supported" in sentence for sentence in done.left_out)
    assert len(project.uploads) == 3


def test_a_task_that_label_studio_does_not_take_is_left_out_by_name(import_, project, tmp_path):
    done = import_(voc(tmp_path / "a", "1.jpg", "refuse.jpg", "3.jpg"))
    assert paths(project) == ["JPEGImages/1.jpg", "JPEGImages/3.jpg"]
    assert done.left_out == ["JPEGImages/refuse.jpg: Label Studio refuses it: " + done.left_out[0].split(": ", 2)[2]]
    assert "a task is not valid" in done.left_out[0]


def test_images_that_cannot_be_read_are_left_out_by_name(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg", "empty.jpg", "text.jpg", "gone.jpg")
    (folder / "JPEGImages/empty.jpg").write_bytes(b"")
    (folder / "JPEGImages/text.jpg").write_text("no image")
    (folder / "JPEGImages/gone.jpg").unlink()
    (folder / "JPEGImages/Thumbs.db").write_bytes(b"\0")
    (folder / "JPEGImages/._1.jpg").write_bytes(b"\0")
    done = import_(folder)
    assert paths(project) == ["JPEGImages/1.jpg"]
    assert sorted(sentence.rpartition("/")[2] for sentence in done.left_out) == [
        "empty.jpg: it is empty",
        "gone.jpg: there is no such image",
        "text.jpg: it is no image that can be read",
    ]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_out_of_the_folder_is_not_uploaded_unasked(import_, project, tmp_path, what):
    secret = voc(tmp_path / "secret", "2.jpg", shade=100)
    folder = voc(tmp_path / "a", "1.jpg", "2.jpg")
    if what == "file":
        (folder / "JPEGImages/2.jpg").unlink()
        (folder / "JPEGImages/2.jpg").symlink_to(secret / "JPEGImages/2.jpg")
    else:
        shutil.rmtree(folder / "JPEGImages")
        (folder / "JPEGImages").symlink_to(secret / "JPEGImages")
        (folder / "Annotations/1.xml").unlink()
    (sentence,) = import_(folder).left_out
    assert "2.jpg: it is a link to a file outside the folder; --follow-links takes it" in sentence
    assert "JPEGImages/2.jpg" not in paths(project)
    assert import_(folder, follow_links=True).created == 1


def test_a_link_within_the_folder_and_to_the_folder_is_like_any_file(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg", "2.jpg")
    (folder / "JPEGImages/2.jpg").rename(folder / "real.jpg")
    (folder / "JPEGImages/2.jpg").symlink_to("../real.jpg")
    (tmp_path / "link").symlink_to(folder)
    assert (import_(tmp_path / "link").created, import_(folder).present) == (2, 2)


def test_labels_that_cannot_be_used_are_named_and_their_images_come_in_without(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg", "2.jpg", "3.jpg")
    (folder / "Annotations/2.xml").write_text("<annotation><object>")
    voc(folder, "3.jpg", x=21)  # from 20 to 20: no width
    done = import_(folder)
    labelled = {task["data"]["path"]: len(task["annotations"]) for task in project.tasks.values()}
    assert labelled == {"JPEGImages/1.jpg": 1, "JPEGImages/2.jpg": 0, "JPEGImages/3.jpg": 0}
    assert "2.xml: it is no XML" in done.notes[0]
    assert "3.jpg: 1 of its boxes have no width or height, and are not drawn; its label is unknown" in done.notes[1]


def test_a_class_that_the_project_does_not_have_leaves_its_images_out(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg", "2.jpg")
    (folder / "Annotations/2.xml").write_text(XML.format(name="2.jpg", x=1).replace("cell", "zebra"))
    (sentence,) = import_(folder).left_out
    assert paths(project) == ["JPEGImages/1.jpg"]
    assert 'its label "zebra" is no <Label> of the labelling config, which has cell' in sentence


def test_a_label_for_a_smaller_copy_of_the_picture_comes_back_in_its_own_pixels(import_, project, tmp_path):
    folder = voc(tmp_path / "a", "1.jpg")
    text = XML.format(name="1.jpg", x=5).replace(
        "<object>", "<size><width>80</width><height>60</height></size><object>"
    )
    (folder / "Annotations/1.xml").write_text(text)
    import_(folder)
    (task,) = project.tasks.values()
    assert task["annotations"][0]["result"][0]["value"]["x"] == pytest.approx(5)
    export_folder(import_.client, import_.images, 3, tmp_path / "out", "voc")
    assert (tmp_path / "out/Annotations/1.xml").read_text() == text


def test_a_new_project_gets_the_classes_that_the_folder_names_when_nothing_is_labelled(import_, label_studio, tmp_path):
    project = label_studio.project(3, "<View></View>", [])
    folder = tmp_path / "a"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "images/1.png")
    (folder / "data.yaml").write_text("train: images\nnames: [cell, platelet]\n")
    assert import_(folder, "yolo").created == 1
    assert '<Label value="cell"/><Label value="platelet"/>' in project.label_config
    label_studio.project(4, "<View></View>", [])
    (folder / "data.yaml").unlink()
    (folder / "instances.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "images/1.png"}], "categories": []})
    )
    label_studio.project(3, "<View></View>", [])
    with pytest.raises(ConfigError, match="nothing names its classes"):
        import_(folder, "coco")


# ---------------------------------------------------------------------- what people see


def printed(command, *arguments, **options):
    out = Console(file=io.StringIO(), width=300)
    try:
        command(*arguments, **options, console=out)
    finally:
        text = out.file.getvalue()
    return text


@pytest.fixture
def settings(make_settings, label_studio):
    return make_settings(label_studio_url=label_studio.url)


def test_what_was_left_out_is_counted_and_the_first_are_named(settings, project, tmp_path):
    folder = voc(tmp_path / "a", *(f"{n:02}.jpg" for n in range(30)))
    for n in range(1, 30):
        (folder / f"JPEGImages/{n:02}.jpg").write_bytes(b"")
    text = printed(run_import, settings, 3, folder, None, labels="annotations")
    assert f"1 images of {folder} are tasks of project 3 now." in text
    assert "29 left out:" in text
    assert text.count("it is empty") == 20
    assert "and 9 more, which --verbose names" in text
    text = printed(run_import, settings, 3, folder, None, labels="annotations", shown=None)
    assert text.count("it is empty") == 29


def test_an_import_of_which_nothing_comes_in_is_an_error(settings, project, tmp_path):
    folder = voc(tmp_path / "a", "1.tif", "2.tif")
    with pytest.raises(
        ConfigError, match=r"none of its images could be imported: .*1\.tif.*extension is not supported"
    ):
        printed(run_import, settings, 3, folder, None, labels="annotations")
    assert project.tasks == {}


# ---------------------------------------------------------------------- and back


def test_images_of_two_folders_with_the_same_names_are_all_exported(import_, settings, project, tmp_path):
    first, second = voc(tmp_path / "a", "1.jpg"), voc(tmp_path / "b", "1.jpg", shade=200, x=9)
    import_(first)
    import_(second)
    text = printed(run_export, settings, 3, tmp_path / "voc", "voc")
    assert "1 written under another name:" in text
    scenes = {scene.path: scene for scene in read_voc(tmp_path / "voc")}
    assert len(scenes) == 2
    assert all(len(scene.marks) == 1 for scene in scenes.values())
    pixels = sorted(Image.open(tmp_path / "voc" / path).getpixel((0, 0))[0] > 100 for path in scenes)
    assert pixels == [False, True]
    assert (tmp_path / "voc/Annotations/1.xml").read_text() == XML.format(name="1.jpg", x=5)


def coco(folder, name, shade, category):
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (40, 30), (shade, 0, 0)).save(folder / "images" / name)
    content = {
        "images": [{"id": 1, "file_name": f"images/{name}", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": category, "bbox": [1, 2, 3, category], "iscrowd": 0}],
        "categories": [{"id": category, "name": "cell"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_two_coco_folders_with_the_same_numbers_are_exported_as_one(import_, settings, project, tmp_path):
    import_(coco(tmp_path / "a", "1.jpg", 0, 5), "coco")
    import_(coco(tmp_path / "b", "2.jpg", 200, 9), "coco")
    printed(run_export, settings, 3, tmp_path / "out", "coco")
    scenes = {scene.path: scene for scene in read_coco(tmp_path / "out")}
    heights = {path: [round((m.corners[3] - m.corners[1]) * 30) for m in scene.marks] for path, scene in scenes.items()}
    assert heights == {"images/1.jpg": [5], "images/2.jpg": [9]}
    assert {mark.label for scene in scenes.values() for mark in scene.marks} == {"cell"}


@pytest.mark.parametrize("there", [True, False])
def test_an_export_that_fails_leaves_nothing_behind(import_, settings, project, label_studio, tmp_path, there):
    import_(voc(tmp_path / "a", "1.jpg"))
    out = tmp_path / "out"
    if there:
        out.mkdir()
    label_studio.on["GET", "/data/.*"] = lambda: [].pop()  # an answer that breaks off
    label_studio.on["GET", "/api/tasks"] = label_studio_down
    with pytest.raises(LabelStudioError):
        printed(run_export, settings, 3, out, "voc")
    assert out.exists() == there
    assert not there or not list(out.iterdir())
    label_studio.on.clear()
    printed(run_export, settings, 3, out, "voc")
    assert sorted(path.name for path in out.iterdir()) == ["Annotations", "JPEGImages"]


def test_labels_that_would_be_one_file_are_not_written_over_each_other(import_, settings, project, tmp_path):
    folder = tmp_path / "a"
    (folder / "images").mkdir(parents=True)
    for name in ("1.jpg", "1.png"):
        Image.new("RGB", (40, 30)).save(folder / "images" / name)
    images = [{"id": n, "file_name": f"images/1.{s}", "width": 40, "height": 30} for n, s in ((1, "jpg"), (2, "png"))]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4]} for n in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "x.json").write_text(json.dumps(content))
    import_(folder, "coco")
    text = printed(run_export, settings, 3, tmp_path / "out", "yolo")
    assert "the label of images/1.png would be labels/1.txt, as that of images/1.jpg is" in text
    assert not (tmp_path / "out/images/1.png").exists()


def test_only_images_come_in_where_that_is_asked_for(import_, project, tmp_path):
    import_(voc(tmp_path / "a", "1.jpg"), labels=Labels.none)
    (task,) = project.tasks.values()
    assert task["annotations"] == []
