"""The libraries under torch cache a bounded number of kernels, and freed memory is kept."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from stream_app.runtime import malloc
from stream_app.runtime.malloc import KERNEL_CACHES, bound_kernel_caches, keep_freed_memory

PROGRAM = """
import resource
from stream_app.runtime.malloc import configure_malloc
configure_malloc()
import torch
from torch.nn.functional import linear

def read(rows):
    weight = torch.ones(512, 256, dtype=torch.bfloat16)
    for tokens in rows:
        linear(torch.ones(tokens, 256, dtype=torch.bfloat16), weight)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = read(range(300, 500))
print(read(range(500, 900)) - before)
"""


@pytest.mark.guarantee("Bounded memory")
def test_memory_does_not_grow_with_the_shapes_of_batches() -> None:
    """400 batch shapes; all their kernels would be 150 MB where bfloat16 uses oneDNN."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert int(done.stdout) < 30_000, done.stderr


def test_the_environment_is_not_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {name: "7" for name in KERNEL_CACHES})
    bound_kernel_caches()
    assert set(os.environ.values()) == {"7"}


@pytest.mark.parametrize("name", ["", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_freed_memory_is_kept_unless_the_environment_tunes_malloc(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()
    library = SimpleNamespace(mallopt=lambda what, value: calls.append(what))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(os, "environ", {name: "1"} if name else {})
    keep_freed_memory()
    expected = [malloc.MMAP_MAX, malloc.TRIM_THRESHOLD, malloc.TOP_PAD]
    assert calls == ([] if name else expected)
