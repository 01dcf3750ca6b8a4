"""Bloom filters of sealed generations: which of them may hold a key, without asking the database.

A key is 16 bytes of a digest, so its own bits serve as the hash functions. All bits of a key lie in one word of 64
bits: a look-up touches one cache line a generation, and many keys are looked up at once.
"""

import os
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BITS = 5
"""Set for a key. Of the 64 in its word about half are set at 12 bits a key."""

Words = NDArray[np.uint64]


class Filters:
    """The filters of the generations 0, 1, 2 …, all of one size."""

    def __init__(self, generation: int, bits: int):
        """`generation`: the keys of one; `bits`: bits of memory for each."""
        self._count = generation * bits // 64
        self._words: Words = np.zeros((0, self._count), np.uint64)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self._words.nbytes

    def __len__(self) -> int:
        return len(self._words)

    def add(self, keys: bytes) -> None:
        """Add the filter of the next generation; `keys` are its keys, 16 bytes each."""
        places, masks = self._places(keys)
        words = np.zeros(self._count, np.uint64)
        np.bitwise_or.at(words, places, masks)
        self._words = np.vstack((self._words, words))

    def candidates(self, keys: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        """Return generations with those of the keys that each may hold, in the order given."""
        places, masks = self._places(b"".join(keys))
        generations, found = np.nonzero((self._words[:, places] & masks) == masks)
        by_generation: dict[int, list[bytes]] = {}
        for generation, index in zip(generations.tolist(), found.tolist(), strict=True):
            by_generation.setdefault(generation, []).append(keys[index])
        return list(by_generation.items())

    def _places(self, keys: bytes) -> tuple[NDArray[np.intp], Words]:
        """Return each key's word and the bits of it."""
        halves = np.frombuffer(keys, ">u8").reshape(-1, 2).astype(np.uint64)
        # The first 32 bits, as a fraction of all words: their number need not be a power of two.
        places = ((halves[:, 0] >> np.uint64(32)) * np.uint64(self._count)) >> np.uint64(32)
        masks = np.zeros(len(halves), np.uint64)
        for number in range(_BITS):
            masks |= np.uint64(1) << ((halves[:, 1] >> np.uint64(6 * number)) & np.uint64(63))
        return places.astype(np.intp), masks


def trial(generation: int = 1 << 20, sealed: int = 10, group: int = 4_000) -> list[list[str]]:
    """Measure filters by themselves; return the rows of a table."""
    rows = [["bits a key", "MB for 10 generations", "false, of 100", "to make one, s", "to ask all, µs a key"]]
    for bits in (8, 10, 12, 16):
        filters = Filters(generation, bits)
        started = time.perf_counter()
        for _ in range(sealed):
            filters.add(os.urandom(16 * generation))
        made = (time.perf_counter() - started) / sealed
        fresh = [os.urandom(16) for _ in range(group)]
        started = time.perf_counter()
        found = filters.candidates(fresh)
        asked = time.perf_counter() - started
        false = sum(len(keys) for _, keys in found) / group / sealed * 100
        rows.append(
            [str(bits), f"{filters.size / 1e6:.0f}", f"{false:.1f}", f"{made:.2f}", f"{asked / group * 1e6:.2f}"]
        )
    return rows
