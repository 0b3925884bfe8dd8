"""JPEG files through libjpeg-turbo (simplejpeg's wheel), only as far as their pixels are needed."""

import dataclasses
import math
import re
import threading

import numpy as np
import simplejpeg
from PIL import Image

# The extra rows below the last one that is used: chroma is interpolated from its neighbours, and
# blocks are at most 16 rows high.
_MARGIN = 8
_BLOCK = 16
_SCRATCH_BYTES = 64 << 20
_LEFT_OVER = re.compile(r"extraneous bytes before marker 0xd9")
# Where a file has no EXIF orientation, Pillow takes XMP's.
_XMP_TURN = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")
_scratch = threading.local()


@dataclasses.dataclass(frozen=True)
class Header:
    """What the start of a JPEG file tells.

    Attributes:
      height, width: in pixels.
      channels: 1, 3 or 4.
      size_at: where in the file the height stands, as two bytes.
      single_scan: whether all rows come in one sequential scan, so that the decoder may stop early.
      upright: whether neither EXIF nor XMP asks for a rotation.
    """

    height: int
    width: int
    channels: int
    size_at: int
    single_scan: bool
    upright: bool


def header(encoded: bytes) -> Header | None:
    """Reads the markers before the first scan (ITU T.81, annex B); None if these are not a usual
    JPEG's.
    """
    if encoded[:2] != b"\xff\xd8":
        return None
    place, frame, upright = 2, None, True
    while place + 4 <= len(encoded):
        if encoded[place] != 0xFF:
            return None
        kind, length = encoded[place + 1], int.from_bytes(encoded[place + 2 : place + 4], "big")
        if kind == 0xFF:
            place += 1
            continue
        if length < 2 or place + 2 + length > len(encoded):
            return None
        if kind in (0xC0, 0xC1, 0xC2) and length >= 8:
            height, width = (
                int.from_bytes(encoded[place + i : place + i + 2], "big") for i in (5, 7)
            )
            usual = encoded[place + 4] == 8 and height and width
            frame = (height, width, encoded[place + 9], place + 5, kind) if usual else None
        elif kind == 0xE1 and encoded[place + 4 : place + 10] == b"Exif\0\0":
            upright &= _upright(encoded[place + 4 : place + 2 + length])
        elif kind == 0xE1 and (turn := _XMP_TURN.search(encoded, place, place + 2 + length)):
            upright &= turn[1] == b"1"
        elif kind == 0xDA:
            if frame is None:
                return None
            height, width, channels, size_at, sort = frame
            single = sort != 0xC2 and encoded[place + 4] == channels
            return Header(height, width, channels, size_at, single, upright)
        place += 2 + length
    return None


def rows(
    encoded: bytes, head: Header, stop: float, reduction: int, smooth_chroma: bool = True
) -> np.ndarray | None:
    """Decodes the rows above `stop`, at 1 / `reduction` of the size.

    Where the file allows it, its header is rewritten to a smaller height, so that the decoder stops
    there; it then reports the rest of the data as left over, which tells that all rows before it
    came out.

    Args:
      encoded: the file.
      head: its header, of 1 or 3 channels.
      stop: the last row that is needed, in pixels of the full size.
      reduction: 1, 2, 4 or 8: the scaled inverse DCT yields the smaller image directly.
      smooth_chroma: whether subsampled colour is interpolated, as Pillow does it, or repeated.

    Returns:
      uint8 [h, w, 3], valid until this thread's next call, or None if libjpeg-turbo finds a fault.
    """
    height = -(-(math.ceil(stop) + _MARGIN) // _BLOCK) * _BLOCK
    whole = height >= head.height or not head.single_scan
    file: bytes | bytearray = encoded
    if whole:
        height = head.height
    else:
        file = bytearray(encoded)
        file[head.size_at : head.size_at + 2] = height.to_bytes(2, "big")
    shape = (-(-height // reduction), -(-head.width // reduction), 3)
    pixels = _buffer(math.prod(shape)).reshape(shape)
    try:
        simplejpeg.decode_jpeg(
            file,
            "RGB",
            fastupsample=not smooth_chroma,
            min_height=shape[0],
            min_width=shape[1],
            buffer=pixels,
        )
    except ValueError as error:
        if whole or not _LEFT_OVER.search(str(error)):
            return None
    return pixels


def _upright(segment: bytes) -> bool:
    exif = Image.Exif()
    try:
        exif.load(segment)
        return exif.get(0x0112, 1) == 1
    # Pillow decides about files with odd EXIF data.
    except Exception:
        return False


def _buffer(size: int) -> np.ndarray:
    if size > _SCRATCH_BYTES:
        return np.empty(size, np.uint8)
    kept = getattr(_scratch, "bytes", None)
    if kept is None or len(kept) < size:
        kept = _scratch.bytes = np.empty(max(size, 1 << 20), np.uint8)
    return kept[:size]
