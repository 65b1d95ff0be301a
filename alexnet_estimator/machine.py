"""The machine, as far as speed depends on it; no TensorFlow is imported here."""

import itertools
import os
import platform
import re

CPUINFO = "/proc/cpuinfo"


def cpu_model(cpuinfo: str = CPUINFO) -> str:
    """Return the name of the processor, or its architecture if it has no name."""
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
    """Return the description of the first processor; empty if this is not Linux."""
    try:
        with open(cpuinfo, encoding="utf-8") as file:
            # The whole file of a large server takes long, and every command reads it.
            return "".join(itertools.takewhile(str.strip, file))
    except OSError:
        return ""
