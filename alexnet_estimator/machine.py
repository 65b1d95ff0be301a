"""The processor and the cores of this machine.

This module does not import TensorFlow.
"""

import itertools
import os
import platform
import re

CPUINFO = "/proc/cpuinfo"


def cpu_model(cpuinfo: str = CPUINFO) -> str:
    """Return the name of the processor, or its architecture if the name is unknown."""
    text = _describe_processor(cpuinfo)
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def is_amd_with_avx2(cpuinfo: str = CPUINFO) -> bool:
    """Return whether this is an AMD processor with 256-bit integer vectors."""
    words = _describe_processor(cpuinfo).split()
    return "AuthenticAMD" in words and "avx2" in words


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _describe_processor(cpuinfo: str) -> str:
    """Return the description of the first processor; empty if it cannot be read."""
    try:
        with open(cpuinfo, encoding="utf-8") as file:
            # Every command reads this file, and the whole of it takes long to read on
            # a server with many cores.
            return "".join(itertools.takewhile(str.strip, file))
    except OSError:
        return ""
