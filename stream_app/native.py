"""Native: what the libraries under torch read from the environment when they are first used.

oneDNN and what binds it to torch keep a program for every shape of a batch they have met, 1,024
each: in bfloat16 hundreds of megabytes over a day, since no two batches are alike. Knows no torch.
"""

import os

# Measured with batches of random shapes: as fast as with 1,024, and the memory stays flat.
# Of one alone it still grows; 0 ends the process.
PROGRAMS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}


def bound_programs() -> None:
    """Keep the latest programs alone, unless the environment says otherwise."""
    for name, most in PROGRAMS.items():
        os.environ.setdefault(name, most)
