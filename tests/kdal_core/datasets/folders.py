"""Folders of data sets for tests, written as other tools write them."""

from PIL import Image

SIZE = (100, 80)


def put(folder, files=(), images=(), size=SIZE, **options):
    """Files (name -> text or bytes) and images of this size in a folder."""
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name, **options)
    for name, content in dict(files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def turned():
    """EXIF of a camera that was held upright: the picture of 100 x 80 pixels is shown as 80 x 100."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def labels(scenes):
    """Path -> names of the labels; none for an image without a label."""
    return {s.path: None if s.marks is None else [mark.label for mark in s.marks] for s in scenes}


def differing(folder, again):
    """Files that were written and are not, byte for byte, those of the first folder."""
    written = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    return [
        path.as_posix()
        for path in written
        if not (folder / path).is_file() or (folder / path).read_bytes() != (again / path).read_bytes()
    ]
