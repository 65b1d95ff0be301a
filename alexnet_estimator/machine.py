"""The machine, as far as speed depends on it; no TensorFlow is imported here."""

import os
import platform
import re


def cpu_model() -> str:
    """Return the processor's name, or where it has none, its architecture."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def num_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))
