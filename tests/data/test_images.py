import hashlib
import io
import struct
import subprocess
import time
import zlib

import numpy
import pytest
from PIL import Image

from kvw.data import Example, check_images, image_digest, load_image
from kvw.data.images import _scaled, image_size
from kvw.errors import UserError


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def filled(mode, value, size=(6, 4)):
    return Image.new(mode, size, value)


def grey(values, dtype):
    return Image.fromarray(numpy.array([values], dtype=dtype))


def palette(index, **options):
    image = Image.new("P", (6, 4), index)
    image.putpalette([0, 0, 0, 200, 100, 50, 0, 0, 255])
    return encode(image, "PNG", **options)


def animation():
    frames = [filled("RGB", (255, 0, 0)), filled("RGB", (0, 0, 255))]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


ORANGE = (200, 100, 50)
SINGLE_COLOUR = {
    "png 1 black": (encode(filled("1", 0), "PNG"), (0, 0, 0)),
    "png 1 white": (encode(filled("1", 1), "PNG"), (255, 255, 255)),
    "png L": (encode(filled("L", 77), "PNG"), (77, 77, 77)),
    "png L with a transparent grey": (encode(filled("L", 77), "PNG", transparency=77), (255, 255, 255)),
    "png LA half": (encode(filled("LA", (0, 128)), "PNG"), (127, 127, 127)),
    "png P": (palette(1), ORANGE),
    "png P opaque among transparent": (palette(1, transparency=b"\x00\xff\xff"), ORANGE),
    "png P transparent": (palette(2, transparency=b"\xff\xff\x00"), (255, 255, 255)),
    "png P half transparent": (palette(2, transparency=b"\xff\xff\x80"), (127, 127, 255)),
    "png RGB": (encode(filled("RGB", ORANGE), "PNG"), ORANGE),
    "png RGB with a transparent colour": (
        encode(filled("RGB", ORANGE), "PNG", transparency=ORANGE),
        (255, 255, 255),
    ),
    "png RGBA opaque": (encode(filled("RGBA", (*ORANGE, 255)), "PNG"), ORANGE),
    "png RGBA half": (encode(filled("RGBA", (255, 0, 0, 128)), "PNG"), (255, 127, 127)),
    "png RGBA clear": (encode(filled("RGBA", (9, 9, 9, 0)), "PNG"), (255, 255, 255)),
    "webp RGBA clear": (encode(filled("RGBA", (9, 9, 9, 0)), "WEBP", lossless=True), (255, 255, 255)),
    "webp RGB": (encode(filled("RGB", ORANGE), "WEBP", lossless=True), ORANGE),
    "gif, first frame": (animation(), (255, 0, 0)),
    "bmp": (encode(filled("RGB", ORANGE), "BMP"), ORANGE),
    "ppm": (encode(filled("RGB", ORANGE), "PPM"), ORANGE),
    "pgm with 16 bits": (b"P5 2 1 65535\n" + b"\x80\x80" * 2, (128, 128, 128)),
    "jpeg YCbCr": (encode(filled("RGB", ORANGE), "JPEG", quality=95), ORANGE),
    "jpeg L": (encode(filled("L", 77), "JPEG"), (77, 77, 77)),
    "jpeg CMYK": (encode(filled("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), (255, 0, 0)),
    "tiff CMYK": (encode(filled("CMYK", (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
    "tiff LAB red": (encode(filled("LAB", (138, 209, 198)), "TIFF"), (255, 0, 0)),
    "tiff LAB white": (encode(filled("LAB", (255, 128, 128)), "TIFF"), (255, 255, 255)),
    "tiff LA": (encode(filled("LA", (0, 0)), "TIFF"), (255, 255, 255)),
    "tiff RGBX": (encode(filled("RGBX", (*ORANGE, 0)), "TIFF"), ORANGE),
    "one pixel": (encode(filled("RGB", ORANGE, (1, 1)), "PNG"), ORANGE),
}


@pytest.mark.parametrize("name", SINGLE_COLOUR)
def test_every_mode_becomes_rgb_on_white(name):
    data, expected = SINGLE_COLOUR[name]
    image = load_image(data, "x:1")
    assert image.mode == "RGB"
    # Lossy JPEG and the CIE conversion round by a little; everything else is exact.
    tolerance = 5 if "jpeg" in name or "LAB" in name else 0
    pixels = numpy.asarray(image).reshape(-1, 3).astype(int)
    assert numpy.abs(pixels - numpy.array(expected)).max() <= tolerance


RAMP = [0, 1, 128, 129, 257, 32896, 65535]
RAMP_IN_8_BITS = [0, 0, 0, 1, 1, 128, 255]
GREYSCALE = {
    "png 16 bits": (encode(grey(RAMP, "uint16"), "PNG"), RAMP_IN_8_BITS),
    "tiff 16 bits": (encode(grey(RAMP, "uint16"), "TIFF"), RAMP_IN_8_BITS),
    "tiff 16 bits, dark": (encode(grey([0, 257, 200], "uint16"), "TIFF"), [0, 1, 1]),
    "tiff 32 bits, range of 16": (encode(grey(RAMP, "int32"), "TIFF"), RAMP_IN_8_BITS),
    "tiff 32 bits, range of 8": (encode(grey([0, 7, 255], "int32"), "TIFF"), [0, 7, 255]),
    "tiff 32 bits, wide": (encode(grey([0, 10**6, 2 * 10**6], "int32"), "TIFF"), [0, 128, 255]),
    "tiff 32 bits, negative": (encode(grey([-100, 0, 100], "int32"), "TIFF"), [0, 128, 255]),
    "tiff float to 1": (encode(grey([0.0, 0.2, 1.0], "float32"), "TIFF"), [0, 51, 255]),
    "tiff float to 255": (encode(grey([0.0, 51.4, 255.0], "float32"), "TIFF"), [0, 51, 255]),
    "tiff float, wide": (encode(grey([-1e30, 0.0, 1e30], "float32"), "TIFF"), [0, 128, 255]),
    "tiff float, one value": (encode(grey([-5.0, -5.0], "float32"), "TIFF"), [128, 128]),
    "tiff float, not numbers": (
        encode(grey([numpy.nan, numpy.inf, 0.4, 1.0], "float32"), "TIFF"),
        [0, 0, 102, 255],
    ),
}


@pytest.mark.parametrize("name", GREYSCALE)
def test_deep_greyscale_is_scaled_and_not_clipped(name):
    data, expected = GREYSCALE[name]
    pixels = numpy.asarray(load_image(data, "x:1"))
    assert pixels.shape == (1, len(expected), 3)
    assert pixels[0].tolist() == [[value] * 3 for value in expected]


def test_dark_png_of_older_pillow_releases():
    """Older releases of Pillow open 16-bit PNG in mode I, where small values do not show that the range is 16 bits."""
    image = grey([0, 100, 200], "int32")
    image.format = "PNG"
    assert numpy.asarray(_scaled(image)).tolist() == [[0, 0, 1]]


def test_the_format_is_known_when_it_decides_about_the_range(monkeypatch):
    seen = []
    monkeypatch.setattr("kvw.data.images._rgb", lambda image: seen.append(image.format))
    for name in ("PNG", "JPEG"):
        load_image(encode(Image.new("RGB", (4, 4)), name), "x:1")
    assert seen == ["PNG", "JPEG"]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, "ab/cd"), (2, "ba/dc"), (3, "dc/ba"), (4, "cd/ab"), (5, "ac/bd"), (6, "ca/db"), (7, "db/ca"), (8, "bd/ac")],
)
def test_exif_orientation_is_applied(orientation, expected):
    grey_of = {"a": 0, "b": 80, "c": 160, "d": 255}
    stored = Image.fromarray(numpy.kron(numpy.array([[0, 80], [160, 255]]), numpy.ones((8, 8))).astype("uint8"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = numpy.asarray(load_image(encode(stored, "PNG", exif=exif), "x:1"))[4::8, 4::8, 0]
    assert pixels.tolist() == [[grey_of[letter] for letter in row] for row in expected.split("/")]


def test_file_and_bytes_give_the_same_image_size_and_digest(tmp_path):
    data = SINGLE_COLOUR["png RGB"][0]
    path = tmp_path / "image.wrong_extension"
    path.write_bytes(data)
    assert load_image(path, "x:1").tobytes() == load_image(data, "x:1").tobytes()
    assert image_size(path, "x:1") == image_size(data, "x:1") == (4, 6)
    assert image_digest(path) == image_digest(data) == hashlib.sha256(data).hexdigest()


def noise(kind):
    pixels = numpy.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
    return encode(Image.fromarray(pixels), kind)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_truncated_files_are_user_errors(kind):
    data = noise(kind)
    with pytest.raises(UserError, match=r"forget\.jsonl:7: an image cannot be read"):
        load_image(data[: len(data) // 2], "forget.jsonl:7")


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg xmlns='x'/>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
@pytest.mark.parametrize("read", [load_image, image_size])
def test_what_is_no_image_is_a_user_error(data, read):
    with pytest.raises(UserError, match=f"x:1: an image cannot be read[\\s\\S]*{len(data)} bytes inside"):
        read(data, "x:1")


def test_images_that_cannot_be_read_are_counted():
    good, bad, worse = noise("PNG"), noise("PNG")[:999], noise("JPEG")[:999]
    asked = [
        Example("Q", "A", images, f"x:{row}") for row, images in enumerate([(good,), (good, bad), (worse,), (bad,)])
    ]
    with pytest.raises(UserError) as raised:
        check_images(asked)
    assert raised.value.what == "x:1: an image cannot be read."
    assert raised.value.found.endswith("; this is the first of 2 such images among 3")
    with pytest.raises(UserError, match="x:2: an image cannot be read") as raised:
        check_images([asked[0], asked[2]])
    assert "first of" not in raised.value.found
    check_images(asked[:1])


def test_corrupt_pixels_are_a_user_error():
    data = bytearray(noise("PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UserError, match="x:1: an image cannot be read"):
        load_image(bytes(data), "x:1")


def test_missing_files_and_folders_are_user_errors(tmp_path):
    for path in (tmp_path / "nowhere.png", tmp_path):
        with pytest.raises(UserError, match="x:1: an image cannot be read"):
            load_image(path, "x:1")
        with pytest.raises(UserError, match="cannot be read"):
            image_digest(path)


def png_header(width, height):
    """The first bytes of a PNG of this size, up to the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header)) + b"\0\1\0\0IDAT"


@pytest.mark.parametrize("read", [load_image, image_size])
@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (13_000, 13_000, "x:1: an image has too many pixels[\\s\\S]*13000 x 13000 pixels, more than 64 million"),
        (20_000, 20_000, "x:1: an image cannot be read[\\s\\S]*DecompressionBombError"),
        (1, 65_000, "x:1: an image is too long and narrow[\\s\\S]*1 x 65000 pixels, a ratio above 200:1"),
        (201, 1, "x:1: an image is too long and narrow[\\s\\S]*201 x 1 pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_costs_gigabytes_is_refused_by_the_header(read, width, height, message, tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    path = tmp_path / "a.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(UserError, match=message) as raised:
        read(path, "x:1")
    assert "a.png" in str(raised.value)


@pytest.mark.parametrize("read", [load_image, image_size])
def test_a_huge_file_is_refused_before_it_is_read(read, tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(encode(filled("RGB", ORANGE), "WEBP"))
    with path.open("r+b") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(UserError, match=r"x:1: the file of an image is too large[\s\S]*1073741825 bytes"):
        read(path, "x:1")


def test_the_bounds_are_within_what_is_read():
    assert load_image(encode(filled("L", 0, (200, 1)), "PNG"), "x:1").size == (200, 1)
    assert image_size(png_header(8000, 8000), "x:1") == (8000, 8000)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX", "SGI", "PDF", "JPEG2000"])
def test_no_decoder_outside_the_list_is_tried(kind, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(UserError, match=r"no picture in a known format[\s\S]*PNG, JPEG, WEBP"):
        load_image(encode(filled("RGB", ORANGE, (16, 16)), kind), "x:1")


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, AttributeError, struct.error, RecursionError])
def test_whatever_a_decoder_raises_is_one_message(error, monkeypatch):
    def broken(_):
        raise error("Failed to decode frame 0")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", broken)
    with pytest.raises(UserError, match=f"x:1: an image cannot be read[\\s\\S]*{error.__name__}: Failed"):
        load_image(SINGLE_COLOUR["png RGB"][0], "x:1")


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr("kvw.data.images.LARGE", 20)
    inside, most = [], []

    def counted(source, identifier):
        inside.append(source)
        most.append(len(inside))
        time.sleep(0.001)
        inside.remove(source)

    monkeypatch.setattr("kvw.data.images.load_image", counted)
    images = tuple(encode(filled("RGB", (value, 0, 0)), "PNG") for value in range(50))
    check_images([Example("Q", "A", images)])
    assert most == [1] * 50


def test_a_damaged_image_is_found_before_a_run():
    with pytest.raises(UserError, match="x:9: an image cannot be read"):
        check_images([Example("Q", "A", (noise("PNG")[:-100],), "x:9")])
