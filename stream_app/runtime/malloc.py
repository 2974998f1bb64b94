"""Native: bounds for what the libraries under torch keep, and what is worth keeping.

oneDNN and what binds it to torch keep a program for every shape of a batch they have met, 1,024
each: in bfloat16 hundreds of megabytes over a day, since no two batches are alike. glibc gives
what a forward frees back to the kernel, and waits for pages filled with zeros in the next one: a
sixth of a worker's time. Knows the environment and mallopt(3), no torch; elsewhere than on glibc
the second does nothing.
"""

import ctypes
import os

# Measured with batches of random shapes: as fast as with 1,024, and the memory stays flat.
# Of one alone it still grows; 0 ends the process.
PROGRAMS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
KEPT_BYTES, AHEAD_BYTES = 2**31 - 1, 1 << 26
TUNED = "MALLOC_", "GLIBC_TUNABLES"
"""How variables begin by which somebody else has a say in it."""


def configure_malloc() -> None:
    """Keep the latest programs alone, and freed memory at hand, unless the environment says
    otherwise: before torch is first used."""
    bound_programs()
    keep_freed()


def bound_programs() -> None:
    """So many of each library."""
    for name, most in PROGRAMS.items():
        os.environ.setdefault(name, most)


def keep_freed() -> None:
    """All but what is free at the heap's end beyond two gigabytes; so memory in use stays near the
    most there ever was. It is taken from the kernel in larger pieces."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith(TUNED) for name in os.environ):
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(TOP_PAD, AHEAD_BYTES)
