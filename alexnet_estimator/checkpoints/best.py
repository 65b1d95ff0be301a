"""The record of the most accurate checkpoint.

This module does not import TensorFlow.
"""

import os
from typing import Any, Dict, Optional

from alexnet_estimator.checkpoints.names import PREFIX, path_of
from alexnet_estimator.errors import DataError
from alexnet_estimator.files import encode_json, read_json, write_bytes

BEST = "best.json"


def note_best(model_dir: str, step: int, accuracy: float) -> None:
    """Record the checkpoint of ``step`` as the best if it is the most accurate."""
    best = _read_best(model_dir)
    is_there = best and path_of(model_dir, best["step"])
    if is_there and accuracy <= best["top_1_accuracy"]:
        return
    record = {"checkpoint": f"{PREFIX}{step}", "step": step, "top_1_accuracy": accuracy}
    write_bytes(os.path.join(model_dir, BEST), encode_json(record))


def best_of(model_dir: str) -> Optional[str]:
    """Return the path prefix of the most accurate checkpoint, or None if it is gone."""
    record = _read_best(model_dir)
    return path_of(model_dir, record["step"]) if record else None


def forget_best(model_dir: str, step: int) -> None:
    """Delete the record if it names the checkpoint of ``step``, which is damaged."""
    if _read_best(model_dir).get("step") == step:
        os.remove(os.path.join(model_dir, BEST))


def _read_best(model_dir: str) -> Dict[str, Any]:
    """Return the content of ``best.json``; empty if the file is not there.

    Raises:
        DataError: The file is damaged.
    """
    path = os.path.join(model_dir, BEST)
    if not os.path.exists(path):
        return {}
    try:
        record = read_json(path)
        accuracy = float(record["top_1_accuracy"])
        return {"step": int(record["step"]), "top_1_accuracy": accuracy}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"damaged ({error!r}): delete it", path) from error
