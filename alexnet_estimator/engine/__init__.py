"""The supported releases of TensorFlow, 1.15 and 2.15, and their differences.

The package uses the common interface of TensorFlow 1.15 and of ``tf.compat.v1`` in
2.15, which modules import from ``graph_mode``.  This module finds out what the
installed release lacks without importing TensorFlow.
"""

import importlib.util
import pathlib
from typing import List


def is_1_15() -> bool:
    """Return whether TensorFlow 1.15 is installed, which NPUs and LARS require."""
    # Builds of 1.15 have different names, but all have their code in this package.
    return importlib.util.find_spec("tensorflow_core") is not None


def lacking(device: str, adapter: str, optimizer: str = "") -> List[str]:
    """Return a message for each feature that the installed TensorFlow lacks.

    Args:
        device: Name of the accelerator.
        adapter: Name of the vendor's package that requires TensorFlow 1.15, or empty.
        optimizer: Name of the optimizer, or empty.
    """
    problems: List[str] = []
    if is_1_15():
        return problems
    if optimizer == "lars":
        problems.append(
            "optim.optimizer is 'lars', which only TensorFlow 1.15 has (in "
            "tf.contrib): use momentum or adam, or create an environment with "
            "TensorFlow 1.15 (ALEXNET_TF=1.15)"
        )
    if adapter:
        problems.append(
            f"runtime.device is {device} (auto chooses it if it is present), but its "
            f"package {adapter} requires TensorFlow 1.15, and another release is "
            "installed: set PYTHON to a Python 3.7 with TensorFlow 1.15 and "
            f"{adapter}, or use --device=cpu"
        )
    return problems


def describe_build() -> str:
    """Return the name and version of the installed build of TensorFlow."""
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
