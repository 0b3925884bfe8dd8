"""Decoding: every kind of file comes out as RGB, as torchvision would show it, and broken ones are
named.
"""

import functools
import io

import fabricate
import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.images import decode, geometry, jpeg, resize


def photograph(height=375, width=500, seed=0):
    return np.asarray(Image.open(io.BytesIO(fabricate.jpeg(seed, height, width, 95))))


def torchvision_reference(encoded, size, share):
    """Resize, then crop, by torchvision's arithmetic, with Pillow."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    short, (width, height) = round(size / share), image.size
    wide = (
        (short, int(short * height / width))
        if width <= height
        else (int(short * width / height), short)
    )
    resized = image.resize(wide, Image.Resampling.BILINEAR)
    left, top = round((wide[0] - size) / 2.0), round((wide[1] - size) / 2.0)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def evaluated(encoded, size=224, share=0.875):
    choose = functools.partial(geometry.central_part, size=size, share=share)
    return decode.part(encoded, size, choose, "here", finest=2.0)


# The last two are large enough for a decode at reduced size, which is another filter.
@pytest.mark.parametrize(
    ("shape", "size", "mean", "tail"),
    [
        ((375, 500), 224, 0.3, 1),
        ((420, 280), 224, 0.3, 1),
        ((256, 341), 224, 0.3, 1),
        ((100, 90), 224, 0.3, 1),
        ((427, 640), 96, 1.0, 4),
        ((427, 640), 48, 1.0, 4),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_evaluation_shows_what_torchvision_shows(shape, size, mean, tail, seed):
    encoded = fabricate.jpeg(seed, *shape, quality=95)
    difference = np.abs(
        evaluated(encoded, size).astype(int) - torchvision_reference(encoded, size, 0.875)
    )
    assert difference.mean() <= mean
    assert np.percentile(difference, 99) <= tail


@pytest.mark.parametrize("box", [(0, 0, 375, 375), (10.3, 20.7, 250.1, 310.9), (300, 400, 75, 100)])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_resizers_agree_to_one_level(box, channels, monkeypatch):
    pixels = photograph()[..., :channels]
    fast = resize.resized(pixels, box, 96)
    monkeypatch.setattr(resize, "cykooz_resizer", None)
    slow = resize.resized(pixels, box, 96)
    assert fast.shape == slow.shape == (96, 96, channels)
    assert np.abs(fast.astype(int) - slow).max() <= 1


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}]
)
@pytest.mark.parametrize(
    "box", [(0, 0, 60, 70), (100, 30, 144, 300), (300, 400, 75, 100), (0, 0, 375, 500)]
)
def test_a_partial_decode_equals_a_whole_one(options, box):
    encoded = fabricate.encoded(photograph(), "JPEG", quality=90, **options)
    got = decode.part(encoded, 64, lambda *_: box, "here", finest=99)
    image = Image.open(io.BytesIO(encoded))
    top, left, height, width = box
    expected = image.resize(
        (64, 64), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    assert np.abs(got.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_repeated_chroma_stays_near_interpolated(seed):
    encoded = fabricate.jpeg(seed, 375, 500, 95)
    smooth, repeated = (
        decode.part(
            encoded, 224, lambda *_: (50, 60, 250, 300), "here", smooth_chroma=smooth
        ).astype(int)
        for smooth in (True, False)
    )
    assert 0 < np.abs(smooth - repeated).mean() < 2


def test_a_partial_decode_stops_early():
    encoded = fabricate.encoded(photograph(), "JPEG", quality=90)
    head = jpeg.header(encoded)
    assert (head.height, head.width, head.channels, head.single_scan, head.upright) == (
        375,
        500,
        3,
        True,
        True,
    )
    assert jpeg.rows(encoded, head, 50, 1).shape == (64, 500, 3)
    assert jpeg.rows(encoded, head, 50, 4).shape == (16, 125, 3)
    progressive = fabricate.encoded(photograph(), "JPEG", quality=90, progressive=True)
    assert jpeg.rows(progressive, jpeg.header(progressive), 50, 1).shape == (375, 500, 3)


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return fabricate.encoded(np.rot90(photograph()), "JPEG", quality=95, subsampling=0, exif=exif)


def rotated_by_xmp():
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    return fabricate.encoded(np.rot90(photograph()), "JPEG", quality=95, subsampling=0, xmp=xmp)


def kinds():
    pixels = photograph()
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L"))

    def saved(image, kind, **options):
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return {
        "jpeg": (saved(image, "JPEG", quality=95), pixels),
        "png": (saved(image, "PNG"), pixels),
        "webp": (saved(image, "WEBP", lossless=True), pixels),
        "bmp": (saved(image, "BMP"), pixels),
        "grey jpeg": (saved(image.convert("L"), "JPEG", quality=95), grey),
        "grey png": (saved(image.convert("L"), "PNG"), grey),
        "cmyk": (saved(image.convert("CMYK"), "JPEG", quality=95), pixels),
        "palette": (
            saved(image.quantize(256), "PNG"),
            np.asarray(image.quantize(256).convert("RGB")),
        ),
        "alpha": (saved(image.convert("RGBA"), "PNG"), pixels),
        "16 bit": (saved(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"), grey),
        "one bit": (saved(image.convert("1"), "PNG"), np.asarray(image.convert("1").convert("L"))),
        "exif": (rotated(), pixels),
        "xmp": (rotated_by_xmp(), pixels),
        "trailing bytes": (saved(image, "JPEG", quality=95) + b"\0" * 99, pixels),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_file_comes_out_as_rgb(kind):
    encoded, pixels = kinds()[kind]
    expected = (
        Image.fromarray(pixels)
        .convert("RGB")
        .resize((224, 224), Image.Resampling.BILINEAR, box=(0, 0, 375, 375))
    )
    got = decode.part(encoded, 224, lambda *_: (0, 0, 375, 375), "here")
    assert got.shape == (224, 224, 3)
    assert np.abs(got.astype(int) - np.asarray(expected)).mean() < 2


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png"])
def test_a_truncated_file_is_named(share, kind):
    pixels = photograph()
    options = {"progressive": True} if kind == "progressive" else {}
    encoded = fabricate.encoded(pixels, "PNG" if kind == "png" else "JPEG", **options)
    cut = encoded[: int(len(encoded) * share)]
    with pytest.raises(decode.CorruptImageError, match=r"file\.jpg, record 3: no readable image"):
        decode.part(cut, 32, lambda *_: (0, 0, 60, 60), "file.jpg, record 3")


def test_a_bomb_is_refused_before_it_goes_off():
    encoded = bytearray(fabricate.encoded(photograph(), "JPEG"))
    at = jpeg.header(bytes(encoded)).size_at
    encoded[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(decode.CorruptImageError, match=r"too many|exceeds limit"):
        decode.part(bytes(encoded), 32, lambda h, w: (0, 0, h, w), "here")


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 3)])
def test_tiny_images_are_stretched(shape):
    encoded = fabricate.encoded(np.full((*shape, 3), 77, np.uint8), "PNG")
    assert (evaluated(encoded, 16) == 77).all()


def test_an_image_of_another_shape_than_stated_is_corrupt():
    encoded = fabricate.encoded(np.zeros((5, 6, 3), np.uint8), "PNG")
    assert decode.whole(encoded, (5, 6, 3), "here").shape == (5, 6, 3)
    with pytest.raises(decode.CorruptImageError, match=r"shape \(5, 6, 3\)"):
        decode.whole(encoded, (6, 5, 3), "here")


@pytest.mark.parametrize("interpolation", resize.INTERPOLATIONS)
@pytest.mark.parametrize(
    ("height", "width", "size"), [(300, 400, 64), (40, 30, 64), (230, 230, 224)]
)
def test_every_filter_is_pillow_s(interpolation, height, width, size):
    pixels = photograph(height, width)
    expected = Image.fromarray(pixels).resize((size, size), Image.Resampling[interpolation.upper()])
    found = resize.resized(pixels, (0, 0, height, width), size, interpolation)
    difference = np.abs(found.astype(int) - np.asarray(expected, int))
    assert difference.mean() <= 0.5
    # Between its two passes Pillow cuts off at 0 and 255 what a filter with negative lobes
    # overshoots; such pixels are few.
    assert difference.max() <= (2 if interpolation == "bilinear" else 16)
    assert (difference > 2).mean() < 0.01
