"""Memory of the libraries under torch: bounded caches, and freed memory that stays in the process.

oneDNN and torch's binding to it cache a compiled kernel for every batch shape, up to 1,024 each:
in bfloat16 hundreds of megabytes over a day, since batches hardly ever have the same shape. glibc
returns what a forward frees to the kernel, and the next forward waits for zeroed pages: a sixth of
a worker's time. Set through the environment and mallopt(3), before torch is used; the second does
nothing without glibc.
"""

import ctypes
import os

# Measured with batches of random shapes: as fast as 1,024, and memory stays flat. With only one of
# the two bounded it still grows; 0 ends the process.
KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}

# Parameters of mallopt(3), and their values in bytes.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
TRIM_BYTES, PAD_BYTES = 2**31 - 1, 1 << 26
TUNED = "MALLOC_", "GLIBC_TUNABLES"
"""Prefixes of the variables by which a user tunes malloc."""


def configure_malloc() -> None:
    """Bound the kernel caches and keep freed memory, unless the environment says otherwise. Call
    this before torch is first used."""
    bound_kernel_caches()
    keep_freed_memory()


def bound_kernel_caches() -> None:
    """Limit how many kernels each library caches."""
    for name, limit in KERNEL_CACHES.items():
        os.environ.setdefault(name, limit)


def keep_freed_memory() -> None:
    """Keep up to two gigabytes of freed memory in the process, so its memory stays near its peak,
    and take memory from the kernel in larger pieces."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith(TUNED) for name in os.environ):
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, TRIM_BYTES)
    mallopt(TOP_PAD, PAD_BYTES)
