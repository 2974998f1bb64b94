"""The libraries under torch: what they keep of the shapes they have met is bounded."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from stream_app.runtime import malloc
from stream_app.runtime.malloc import PROGRAMS, bound_programs, keep_freed

PROGRAM = """
import resource
from stream_app.native import settle_memory
settle_memory()
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
    """400 shapes that are not kept; kept, they are 150 MB where bfloat16 goes through oneDNN."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert int(done.stdout) < 30_000, done.stderr


def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {name: "7" for name in PROGRAMS})
    bound_programs()
    assert set(os.environ.values()) == {"7"}


@pytest.mark.parametrize("name", ["", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_is_freed_is_kept_unless_the_environment_says_how(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[int]()
    library = SimpleNamespace(mallopt=lambda what, much: told.append(what))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(os, "environ", {name: "1"} if name else {})
    keep_freed()
    asked = [malloc.MMAP_MAX, malloc.TRIM_THRESHOLD, malloc.TOP_PAD]
    assert told == ([] if name else asked)
