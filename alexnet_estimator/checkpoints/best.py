"""Which checkpoint is the most accurate one.  No TensorFlow is imported here."""

import os
from typing import Any, Dict, Optional

from alexnet_estimator.checkpoints.names import PREFIX, path_of
from alexnet_estimator.errors import DataError
from alexnet_estimator.files import encode_json, read_json, write_bytes

BEST = "best.json"


def note_best(model_dir: str, step: int, accuracy: float) -> None:
    """Record the checkpoint of ``step`` as the best if it is more accurate."""
    if best_of(model_dir) and accuracy <= _read_best(model_dir)["top_1_accuracy"]:
        return
    record = {"checkpoint": f"{PREFIX}{step}", "step": step, "top_1_accuracy": accuracy}
    write_bytes(os.path.join(model_dir, BEST), encode_json(record))


def best_of(model_dir: str) -> Optional[str]:
    """Return the path prefix of the most accurate checkpoint, if it is still there."""
    record = _read_best(model_dir)
    return path_of(model_dir, record["step"]) if record else None


def forget_best(model_dir: str, step: int) -> None:
    """Let the checkpoint of ``step`` be the best no more, because it is damaged."""
    if _read_best(model_dir).get("step") == step:
        os.remove(os.path.join(model_dir, BEST))


def _read_best(model_dir: str) -> Dict[str, Any]:
    """Return what ``best.json`` says, empty where it is not there.

    Raises:
        DataError: It is damaged.
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
