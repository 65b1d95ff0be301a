"""The two TensorFlows that run this job, 1.15 and 2.15, and where they differ.

All code uses only what both have: 1.15 itself and ``tf.compat.v1`` of 2.15.  Modules
import it from ``graph_mode``.  This module tells, without importing TensorFlow, what
the installed one lacks.
"""

import importlib.util
import pathlib
from typing import List


def is_1_15() -> bool:
    """Return whether the installed TensorFlow is 1.15: it has ``tf.contrib``, NPUs."""
    # Where its code is, whatever its distribution is called.
    return importlib.util.find_spec("tensorflow_core") is not None


def lacking(device: str, adapter: str, optimizer: str = "") -> List[str]:
    """Return what is asked for that the installed TensorFlow lacks, and the way out.

    Args:
        device: Name of the accelerator.
        adapter: Name of its vendor's package, which needs 1.15; empty: there is none.
        optimizer: Name of the optimizer; empty: none is needed.
    """
    problems: List[str] = []
    if is_1_15():
        return problems
    if optimizer == "lars":
        problems.append(
            "optim.optimizer is 'lars', which only TensorFlow 1.15 has (in "
            "tf.contrib): use momentum or adam, or make its environment with "
            "ALEXNET_TF=1.15"
        )
    if adapter:
        problems.append(
            f"runtime.device is {device}, also by auto where there is one, but its "
            f"vendor's adapter, {adapter}, is made for TensorFlow 1.15, and another is "
            "installed here: set PYTHON to a Python 3.7 with TensorFlow 1.15 and "
            f"{adapter}, or use --device=cpu"
        )
    return problems


def describe_build() -> str:
    """Return the name and the version of the installed build of TensorFlow."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.origin:
        return "no TensorFlow"
    folder = pathlib.Path(spec.origin).parents[1]
    for metadata in folder.glob("*tensorflow*.dist-info"):
        top_level = metadata / "top_level.txt"
        if top_level.is_file() and "tensorflow" in top_level.read_text().split():
            name, _, version = metadata.stem.rpartition("-")
            return f"{name.replace('_', '-')} {version}"
    return f"TensorFlow in {folder}"
