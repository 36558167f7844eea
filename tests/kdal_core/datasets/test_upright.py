import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from kdal_core.datasets.images import image_size, upright, upright_size
from kdal_core.errors import ConfigError

ORIENTATION = 0x0112
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a),
}
"""The EXIF standard's eight orientations: how the stored picture is turned to stand upright."""
STORED = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
"""A picture without any symmetry, 40 x 24."""
FORMATS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100},
    "TIFF": {},
    "TIFF, compressed": {"compression": "tiff_lzw"},
    "MPO": {"quality": 95, "subsampling": 0},
}


def encoded(form, **more):
    file = io.BytesIO()
    STORED.save(file, form.partition(",")[0], **FORMATS[form], **more)
    return file.getvalue()


def with_exif(form, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(form, exif=exif)


def opened(data):
    return Image.open(io.BytesIO(data))


def is_read_as(data, expected, tmp_path):
    """Whoever asks and whenever: the pixels, their size, the size before and after decoding, the size of the file."""
    with opened(data) as image:
        before = upright_size(image)
        found = np.asarray(upright(image).convert("RGB"))
        assert upright_size(image) == before
    np.testing.assert_array_equal(found, expected)
    assert before == found.shape[1::-1]
    (tmp_path / "image").write_bytes(data)
    assert image_size(tmp_path / "image") == before


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_each_format_is_turned_as_exif_says_and_its_size_with_it(form, orientation, tmp_path):
    lying = np.asarray(opened(encoded(form)).convert("RGB"))
    is_read_as(with_exif(form, orientation), UPRIGHT[orientation](lying), tmp_path)


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_png_may_say_it_behind_its_pixels(orientation, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    plain = encoded("PNG")
    end = plain.index(b"IEND") - 4
    data = plain[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + plain[end:]
    is_read_as(data, UPRIGHT[orientation](np.asarray(STORED)), tmp_path)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_tiff_whose_xmp_alone_says_it_is_turned_once(orientation, tmp_path):
    tags = ImageFileDirectory_v2()
    tags[700] = f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()
    tags.tagtype[700] = 1
    is_read_as(encoded("TIFF", tiffinfo=tags), UPRIGHT[orientation](np.asarray(STORED)), tmp_path)


@pytest.mark.parametrize("mode", ["L", "I;16", "F", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_tiff_of_any_depth_is_turned_once(mode, orientation, tmp_path):
    tags = ImageFileDirectory_v2()
    tags[ORIENTATION] = orientation
    lying = STORED.convert("L").convert(mode) if mode != "I;16" else STORED.convert("I").convert("I;16")
    file = io.BytesIO()
    lying.save(file, "TIFF", tiffinfo=tags)
    with opened(file.getvalue()) as image:
        size = upright_size(image)
        np.testing.assert_array_equal(np.asarray(upright(image)), UPRIGHT[orientation](np.asarray(lying)))
        assert size == upright(image).size


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"nonsense",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\1",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_leaves_an_image_as_it_is_stored(form, exif, tmp_path):
    """As browsers do: the annotator sees the picture and labels it."""
    lying = np.asarray(opened(encoded(form)).convert("RGB"))
    is_read_as(encoded(form, exif=b"Exif\0\0" + exif), lying, tmp_path)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(orientation, tmp_path):
    for form in ("PNG", "TIFF"):
        is_read_as(with_exif(form, orientation), np.asarray(STORED), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"<html>", encoded("PNG")[:20], encoded("TIFF")[:8]])
def test_what_is_no_image_is_a_config_error_that_names_the_file(content, tmp_path):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.png: (there is no such|it is)"):
        image_size(tmp_path / "a.png")
