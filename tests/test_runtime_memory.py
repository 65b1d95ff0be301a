"""Memory of a process that trains on a CPU."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from alexnet_estimator.runtime import memory
memory.keep_freed_memory()
large = np.ones(64 << 20, np.uint8)
for line in open("/proc/self/maps"):
    start, end = (int(edge, 16) for edge in line.split()[0].split("-"))
    if start <= large.ctypes.data < end:
        print("heap" if "[heap]" in line else "elsewhere")
"""


@pytest.mark.parametrize(
    "variables, place",
    [
        ({}, "heap"),
        ({"MALLOC_ARENA_MAX": "4"}, "elsewhere"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, "elsewhere"),
    ],
)
def test_large_blocks_stay_with_the_process_unless_the_user_says(
    variables: dict, place: str
) -> None:
    """The heap is not given back; the user's own settings are not touched."""
    unset = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**unset, "PYTHONPATH": os.getcwd(), **variables},
        stdout=subprocess.PIPE,
        check=True,
        universal_newlines=True,
    )
    assert done.stdout.split() == [place]
