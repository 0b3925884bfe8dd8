"""The order in which an epoch visits its examples: a permutation whose any part can be computed
alone.
"""

import math

import numpy as np

_ROUNDS = 8
# The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
# 2014).
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))


def permuted(places: np.ndarray, length: int, seed: int, epoch: int) -> np.ndarray:
    """Returns where the permutation of 0 .. length - 1 that belongs to (seed, epoch) sends
    `places`.

    A generalised Feistel cipher (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002,
    section 5) over pairs of residues whose keys come from Philox, a stream that NumPy promises
    never to change. Nothing is stored and nothing is prepared, so the first batch of an epoch costs
    what every batch costs.

    Args:
      places: int64 [n], each in 0 .. length - 1.
      length: the number of examples.
      seed, epoch: what the permutation belongs to; non-negative.

    Returns:
      int64 [n].
    """
    width = math.isqrt(max(length - 1, 0)) + 1
    height = -(-length // width)
    keys = np.random.Philox(key=[seed, epoch]).random_raw(_ROUNDS)
    found = _cipher(places.astype(np.uint64), width, height, keys)
    # The rectangle holds fewer than `width` places too many: walk on from those until all are
    # inside.
    while (outside := np.flatnonzero(found >= length)).size:
        found[outside] = _cipher(found[outside], width, height, keys)
    return found.astype(np.int64)


def spread(batch_size: int, repeats: int) -> np.ndarray:
    """Returns where the rows of a batch lie in a sequence that has each image `repeats` times.

    First all first copies, then all second ones: neighbours are different images, so that none is
    mixed with itself, and the copies of one image lie on different devices, as where repeated
    augmentation (Hoffer et al. 2019; Berman et al. 2019) is trained on several GPUs.

    Returns:
      int64 [batch_size], a permutation of 0 .. batch_size - 1.
    """
    return np.concatenate([np.arange(copy, batch_size, repeats) for copy in range(repeats)])


def _cipher(places: np.ndarray, width: int, height: int, keys: np.ndarray) -> np.ndarray:
    left, right = places // np.uint64(height), places % np.uint64(height)
    for number, key in enumerate(keys):
        if number % 2:
            right = (right + _mixed(left + key)) % np.uint64(height)
        else:
            left = (left + _mixed(right + key)) % np.uint64(width)
    return left * np.uint64(height) + right


def _mixed(words: np.ndarray) -> np.ndarray:
    for shift, factor in _MIX:
        words = words ^ (words >> np.uint64(shift))
        if factor is not None:
            words = words * np.uint64(factor)
    return words >> np.uint64(1)
