"""The checksum of the TFRecord format, in which data sets and TensorBoard's event files come."""

import google_crc32c


def masked_crc(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli) of `data`, rotated and shifted as the format asks."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
