import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from kdal.images import decoding
from kdal.images.refs import ImageRef
from kdal_core.datasets.images import upright_size
from kdal_core.errors import AssetError
from tests.kdal.images.files import PHOTO, data_uri, decode, encode, pixels, read, refused
from tests.kdal.servers import Answer
from tests.kdal.values import outcome


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_that_of_the_decoded_image(loader, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PHOTO, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        size = upright_size(image)
    assert read(loader, data_uri(data)).size == size
    assert loader.load([ImageRef(1, data_uri(data))], (8, 8)).sizes == [size]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP", "JPEG2000"])
def test_the_usual_formats_are_decoded(loader, kind):
    found = decode(loader, encode(PHOTO, kind))
    assert (found.mode, found.size) == ("RGB", (64, 48))
    assert np.abs(pixels(found) - pixels(PHOTO)).mean() < 12  # GIF has 256 colours, JPEG loses some


def test_a_format_that_runs_other_programs_is_not_decoded(loader):
    """Pillow hands EPS to Ghostscript."""
    assert "not an image" in refused(loader, data_uri(encode(PHOTO, "EPS")))


def test_a_file_by_another_name_is_decoded_by_what_it_holds(loader, web):
    web.answers["/a.png"] = Answer(encode(PHOTO, "JPEG"), headers={"Content-Type": "image/png"})
    assert read(loader, f"{web.url}/a.png").size == (64, 48)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_damaged(loader, kind, share):
    whole = encode(PHOTO, kind)
    message = refused(loader, data_uri(whole[: int(len(whole) * share)]))
    assert "damaged" in message or "not an image" in message


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"text", "not an image"), (bytes(1000), "not an image")])
def test_what_is_no_image_is_said_so(loader, data, reason):
    assert reason in refused(loader, data_uri(data))


def png_of(width, height):
    """A PNG file that claims a size and holds next to nothing: a decompression bomb's head."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (11_000, 11_000), (100_000, 100_000), (2**31 - 1, 1)])
def test_huge_dimensions_are_refused_before_decoding(loader, width, height):
    """Decoded, the head alone would be damaged: that it is not called so shows that nobody tried."""
    message = refused(loader, data_uri(png_of(width, height)))
    assert "more" in message
    assert "KDAL_MAX_IMAGE_PIXELS = 50,000,000" in message


def test_an_image_just_within_the_limit_of_pixels_is_decoded(make_loader):
    loader = make_loader(max_image_pixels=64 * 48)
    assert decode(loader, encode(PHOTO)).size == (64, 48)
    assert "64 x 49 pixels" in refused(loader, data_uri(encode(PHOTO.resize((64, 49)))))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_no_image(loader, width, height):
    assert "not an image" in refused(loader, data_uri(b"P6 %d %d 255\n" % (width, height)))


def test_sixteen_bits_of_grey_become_eight(loader):
    """The closed form: v * 255 / 65535, rounded. Pillow's own conversion clips everything above 255 to white."""
    values = np.array([[0, 128, 257, 1000], [30_000, 40_000, 65_000, 65_535]], dtype=np.uint16)
    found = pixels(decode(loader, encode(Image.fromarray(values))))
    np.testing.assert_array_equal(found, np.repeat(np.round(values / 257)[:, :, None], 3, axis=2))


def test_a_sixteen_bit_tiff_looks_like_the_same_picture_as_png(loader):
    values = np.arange(0, 65_536, 257, dtype=np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(
        pixels(decode(loader, encode(Image.fromarray(values), "TIFF"))),
        pixels(decode(loader, encode(Image.fromarray(values), "PNG"))),
    )


@pytest.mark.parametrize("flat", [False, True])
def test_a_picture_of_fractions_is_stretched_to_its_own_range(loader, flat):
    values = np.full((2, 2), 3.5, np.float32) if flat else np.array([[-1, 0], [0.5, 1]], np.float32)
    found = pixels(decode(loader, encode(Image.fromarray(values), "TIFF")))[:, :, 0]
    np.testing.assert_array_equal(found, np.zeros((2, 2)) if flat else [[0, 128], [191, 255]])


def test_a_picture_of_fractions_that_are_no_numbers_is_an_image_or_refused(loader):
    values = np.array([[np.nan, np.inf], [0, 1]], np.float32)
    found = outcome(AssetError, lambda: decode(loader, encode(Image.fromarray(values), "TIFF")))
    assert isinstance(found, AssetError) or found.size == (2, 2)


def test_grey_is_grey_in_three_channels(loader):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(
        pixels(decode(loader, encode(Image.fromarray(values)))), np.repeat(values[:, :, None], 3, axis=2)
    )


def test_black_and_white_is_0_and_255(loader):
    bits = Image.fromarray(np.eye(8, dtype=bool))
    np.testing.assert_array_equal(pixels(decode(loader, encode(bits)))[:, :, 1], 255 * np.eye(8, dtype=int))


def test_a_palette_gives_its_colours(loader):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 150, 100])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(decode(loader, encode(image))), [[[10, 20, 30], [200, 150, 100]]])


def test_transparent_places_are_white_as_the_annotator_sees_them(loader):
    values = np.zeros((1, 3, 4), dtype=np.uint8)
    values[0, :, 0] = 200
    values[0, :, 3] = (255, 0, 128)
    found = pixels(decode(loader, encode(Image.fromarray(values))))
    np.testing.assert_array_equal(found[0, 0], [200, 0, 0])
    np.testing.assert_array_equal(found[0, 1], [255, 255, 255])
    # half of 200 and half of 255, half of 0 and half of 255
    np.testing.assert_allclose(found[0, 2], [227, 127, 127], atol=1)


def test_a_palettes_transparent_colour_is_white(loader):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 150, 100])
    image.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        found = pixels(decode(loader, encode(image, transparency=transparency)))
        np.testing.assert_array_equal(found, [[[255, 255, 255], [200, 150, 100]]])


def test_an_animation_is_its_first_picture(loader):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    found = decode(loader, encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("ink", "colour"), [((0, 0, 0, 0), 255), ((255, 255, 255, 255), 0), ((0, 0, 0, 255), 0)])
def test_printers_inks_become_light(loader, ink, colour):
    found = decode(loader, encode(Image.new("CMYK", (8, 8), ink), "JPEG"))
    np.testing.assert_allclose(pixels(found), colour, atol=3)


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


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_stands_upright_as_its_camera_says(loader, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(decode(loader, encode(PHOTO, exif=exif)))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](pixels(PHOTO)))


def test_a_tensor_has_the_size_that_was_asked_for(loader):
    tensor = loader.tensor(ImageRef(1, data_uri(encode(PHOTO))), (10, 20))
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((3, 10, 20), torch.uint8, True)


def test_a_tensor_of_the_images_own_size_holds_its_pixels(loader):
    tensor = loader.tensor(ImageRef(1, data_uri(encode(PHOTO))), (48, 64))
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), pixels(PHOTO))


# ---------------------------------------------------------------------- anything at all

TURNED = bytes.fromhex("4578696600004d4d002a00000008000101120003000000010006000000000000")
"""EXIF that says orientation 6."""


FILES = [encode(PHOTO.resize((16, 12)), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000")]
FILES += [
    encode(PHOTO.resize((16, 12)).convert("P"), "PNG", transparency=3),
    encode(PHOTO.resize((16, 12)), "JPEG", exif=TURNED),
    encode(PHOTO.resize((16, 12)), "TIFF", compression="tiff_lzw"),
    encode(PHOTO.resize((16, 12)), "JPEG", progressive=True),
    encode(PHOTO.resize((8, 6)), "GIF", save_all=True, append_images=[PHOTO.resize((8, 6)).rotate(90)]),
]
HEADS = [file[:n] for file in FILES for n in (4, 12, 24)]


def an_image_or_an_asset_error(loader, data):
    found = outcome(AssetError, lambda: decode(loader, data))
    if isinstance(found, AssetError):
        assert str(found).startswith("task 1: image data:")
    else:
        assert found.mode == "RGB"
        assert found.width * found.height > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=500) | st.builds(lambda head, tail: head + tail, st.sampled_from(HEADS), st.binary()))
@example(b"GIF89a\0\0\0\0\0\0\0")
def test_any_bytes_are_an_image_or_an_asset_error(loader, data):
    an_image_or_an_asset_error(loader, data)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.2, 1),
)
def test_a_corrupted_file_is_an_image_or_an_asset_error(loader, file, changes, share):
    data = bytearray(file)
    for place, value in changes:
        data[int(place * len(data))] = value
    an_image_or_an_asset_error(loader, bytes(data[: int(share * len(data))]))


def test_deep_grey_is_brought_to_eight_bits_strip_by_strip(loader, monkeypatch):
    monkeypatch.setattr(decoding, "STRIP", 100)
    values = np.random.default_rng(0).integers(0, 65536, (37, 29), dtype=np.uint16)
    found = pixels(decode(loader, encode(Image.fromarray(values))))
    np.testing.assert_array_equal(found[..., 0], (values / 257).round())
    fractions = np.linspace(-3, 5, 37 * 29, dtype=np.float32).reshape(37, 29)
    found = pixels(decode(loader, encode(Image.fromarray(fractions), "TIFF")))
    np.testing.assert_array_equal(found[..., 0], ((fractions.astype(float) + 3) * (255 / 8)).round())
    assert pixels(decode(loader, encode(Image.fromarray(np.full((5, 4), 7, np.float32)), "TIFF"))).max() == 0


def test_a_large_deep_grey_image_takes_little_more_memory_than_its_pixels():
    """As floats, 50 million pixels took 1.5 GB. What numpy takes is counted: Pillow's part is 7 bytes a pixel."""
    data = encode(Image.fromarray(np.zeros((2000, 2000), dtype=np.uint16)))
    tracemalloc.start()
    try:
        decoding.decode(data, 50_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 4_000_000
