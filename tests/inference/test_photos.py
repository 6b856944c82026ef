"""Photos of every kind: what is seen of them, and what is refused."""

import errno
import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from dsvlfs import InputError
from dsvlfs.data import json_stream
from dsvlfs.files import PHOTO_SUFFIXES
from dsvlfs.inference import photos
from dsvlfs.inference.photos import FORMATS, load_mask, load_photo, open_image, readable_formats

GRADIENT = np.linspace(0, 1, 12 * 8).reshape(8, 12)


def grays(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    values = np.asarray(image)
    assert (values == values[..., :1]).all()
    return values[..., 0]


def test_suffixes_are_those_of_the_formats():
    Image.init()
    formats = {*readable_formats(), "MPO"}
    named = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    assert named - PHOTO_SUFFIXES <= {".icb", ".vda", ".vst"}  # of TGA, which other programs' files have too
    assert PHOTO_SUFFIXES - named <= {".heic", ".heics", ".heif", ".heifs", ".hif"}  # where there is no pillow-heif


@pytest.mark.parametrize("kind", ["JPEG2000", "HEIF"])
def test_photos_of_telephones_and_archives_are_read(tmp_path, kind, monkeypatch):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
        readable_formats()
    file = tmp_path / "photo"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(file, kind)
    assert abs(np.asarray(load_photo(file), dtype=int) - (200, 30, 30)).max() <= 4
    monkeypatch.setattr(photos, "readable_formats", lambda: tuple(name for name in FORMATS if name != kind))
    sentence = "is a HEIF; pip install" if kind == "HEIF" else "no image"
    with pytest.raises(InputError, match=sentence):
        load_photo(file)


def test_a_mask_of_the_photos_proportions_is_resized():
    mask = np.zeros((48, 64), np.uint8)
    mask[:24, :32] = 255
    for size in ((640, 480), (32, 24), (321, 241)):
        found = load_mask(Image.fromarray(mask), size)
        assert found.shape == size[::-1]
        assert found.mean() == pytest.approx(0.25, abs=0.01)
        assert found[0, 0]
    for size in ((64, 47), (48, 64), (640, 490)):
        with pytest.raises(InputError, match="or of its proportions"):
            load_mask(mask, size)


@pytest.mark.parametrize(("depth", "largest"), [(8, 255), (12, 4095), (16, 65535)])
def test_gray_is_scaled_by_its_depth(tmp_path, depth, largest):
    values = (GRADIENT * largest).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(values).save(tmp_path / "a.png")
    for source in (
        tmp_path / "a.tif",
        tmp_path / "a.png",
        Image.fromarray(values),
        Image.fromarray(values.astype("i")),
    ):
        assert abs(grays(load_photo(source)) - GRADIENT * 255).max() <= 1


def test_a_tiff_may_say_that_it_has_12_bits(tmp_path):
    values = np.array([[0, 15, 30, 60]], np.uint16)  # dark: 8 bits would hold them
    packed = bytearray()
    for first, second in values.reshape(-1, 2).tolist():
        packed += bytes([first >> 4, (first & 15) << 4 | second >> 8, second & 255])
    # Width, height, bits, no compression, black is zero, the data's place, samples, rows and bytes of its one strip.
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = tmp_path / "a.tif"
    file.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed)
    with Image.open(file) as image:
        assert image.mode == "I;16"
    assert grays(load_photo(file)).tolist() == [[0, 1, 2, 4]]


def test_floats_of_a_file_are_those_of_an_array(tmp_path):
    values = GRADIENT.astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    of_array = grays(load_photo(values))
    assert abs(of_array - values * 255).max() <= 0.5
    for source in (tmp_path / "a.tif", Image.fromarray(values)):
        np.testing.assert_array_equal(grays(load_photo(source)), of_array)
    Image.fromarray(values * 255).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"b\.tif holds from 0 to 255; give uint8, bool, or float from 0 to 1"):
        load_photo(tmp_path / "b.tif")
    with pytest.raises(InputError, match="float32 from nan to nan"):
        load_photo(values * np.float32("nan"))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4), complex),
        np.zeros((4, 4), object),
        np.full((4, 4), "a"),
        np.full((4, 4), -0.5),
        np.full((4, 4), np.inf),
        np.zeros((0, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_arrays_that_are_no_photos_get_a_sentence(array):
    with pytest.raises(InputError, match="give"):
        load_photo(array)


def test_transparent_pixels_are_white():
    image = Image.new("RGBA", (3, 1), (245, 205, 40, 255))
    image.putpixel((1, 0), (245, 205, 40, 0))
    image.putpixel((2, 0), (245, 205, 40, 128))
    expected = [(245, 205, 40), (255, 255, 255), (250, 230, 147)]
    palette = image.quantize(3)
    for source in (image, np.asarray(image), image.convert("RGBa")):
        np.testing.assert_allclose(np.asarray(load_photo(source))[0], expected, atol=1)
    assert load_photo(palette).getpixel((1, 0)) == (255, 255, 255)
    gray = Image.new("L", (2, 1), 9)
    gray.putpixel((0, 0), 7)
    gray.info["transparency"] = 7
    assert grays(load_photo(gray)).tolist() == [[255, 9]]
    with pytest.raises(InputError, match="transparent everywhere"):
        load_photo(Image.new("RGBA", (3, 2), (9, 9, 9, 0)))


def test_what_is_not_a_photo_at_all_is_said(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.ps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in {
        "empty.png": "is empty",
        "page.ps": "cannot be read",
        "pipe.png": "pipe or a device",
        "a\0.png": "no path can",
    }.items():
        with pytest.raises(InputError, match=message):
            load_photo(tmp_path / name)
    for source in (None, 5, b"a.png", ["a.png"], io.BytesIO(b"")):
        with pytest.raises(InputError, match="give a path, a PIL image or a NumPy array"):
            load_photo(source)
    with pytest.raises(InputError, match="no pixels"):
        load_photo(Image.new("RGB", (0, 5)))
    closed = Image.open(io.BytesIO(_encoded(Image.new("RGB", (5, 5)))))
    closed.close()
    with pytest.raises(InputError, match="The photo given cannot be decoded"):
        load_photo(closed)


def _encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_a_stream_is_not_named_by_its_type():
    with pytest.raises(InputError, match="The mask given cannot be read"):
        open_image(io.BytesIO(b"nothing"), "mask")


def test_a_photo_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_PIXELS", 100)
    content = _encoded(Image.new("RGB", (11, 10)))
    (tmp_path / "cut.png").write_bytes(content[:60])  # its header alone
    for source in (tmp_path / "cut.png", Image.new("RGB", (11, 10)), np.zeros((10, 11), np.uint8)):
        with pytest.raises(InputError, match="more than the 0 million that are read; scale it down"):
            load_photo(source)
    assert load_photo(Image.new("RGB", (10, 10))).size == (10, 10)


def test_a_jpeg_that_is_scanned_without_end_is_refused(tmp_path):
    whole = _encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG", progressive=True)
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert load_photo(tmp_path / "whole.jpg").size == (64, 64)
    start = whole.rindex(b"\xff\xda")
    (tmp_path / "long.jpg").write_bytes(whole[:-2] + whole[start:-2] * 200 + whole[-2:])
    with pytest.raises(InputError, match="scans"):
        load_photo(tmp_path / "long.jpg")


class _FailingDisk(io.RawIOBase):
    """A file that opens and cannot be read, as on a disk that fails."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, *_: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    readinto = seek


def test_a_disk_that_fails_is_one_sentence(tmp_path, monkeypatch):
    for module in (photos, json_stream):
        monkeypatch.setattr(module, "open_regular", lambda *_: _FailingDisk())
    with pytest.raises(InputError, match="cannot be read: Input/output error; check the disk"):
        load_photo(tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot be read: Input/output error; check the disk"):
        list(json_stream.read_entries(tmp_path / "a.json", "images", dict))


def test_a_damaged_exif_says_nothing(tmp_path):
    image = Image.new("RGB", (6, 4))
    (tmp_path / "a.jpg").write_bytes(_encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"))
    assert load_photo(tmp_path / "a.jpg").size == (6, 4)


def test_a_result_can_be_given_back_as_a_mask():
    probability = np.full((8, 12), 0.2, np.float32)
    probability[2:5, 3:9] = 0.7
    expected = probability >= 0.5
    np.testing.assert_array_equal(load_mask(probability, (12, 8)), expected)
    np.testing.assert_array_equal(load_mask(Image.fromarray(probability), (12, 8)), expected)
    np.testing.assert_array_equal(load_mask(expected, (12, 8)), expected)
    with pytest.raises(InputError, match="empty"):
        load_mask(probability / 2, (12, 8))


def test_a_mask_that_covers_all_is_refused_where_a_person_gives_it():
    white = np.full((8, 12), 255, np.uint8)
    for source in (white, Image.fromarray(white), Image.fromarray(white).convert("1"), np.ones((8, 12), np.float32)):
        with pytest.raises(InputError, match="covers the whole photo; mark the object alone"):
            load_mask(source, (12, 8))
        assert load_mask(source, (12, 8), may_fill=True).all()
    assert load_mask(np.ones((8, 12), bool), (12, 8)).all()  # a program says so
