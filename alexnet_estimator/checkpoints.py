"""Checkpoints: written whole or not at all, finite, the newest valid one is used."""

import glob
import json
import os
import pathlib
import re
import shutil
import time
from typing import Any, Callable, Dict, Iterable, List, Optional

import numpy as np

from alexnet_estimator.console import warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError, DivergedError
from alexnet_estimator.files import encode_json, write_bytes

PREFIX = "model.ckpt-"
RETRY_SECS = 5.0
_SAVING = ".saving"
_POINTER = "checkpoint"
_BEST = "best.json"


def save(session: tf.Session, saver: tf.train.Saver, model_dir: str, step: int) -> str:
    """Save the session's variables as the newest checkpoint; try twice.

    The files are written into a temporary folder, read back, and moved only if they are
    complete and finite; then the ``checkpoint`` file points at them.

    Returns:
        The path prefix of the new checkpoint.

    Raises:
        DivergedError: a variable is not finite; the previous checkpoint stays newest.
        DataError: the files could not be written or read back.
    """
    try:
        return _try_to_save(session, saver, model_dir, step)
    except DataError as error:
        warn(f"{error}; trying once more")
    time.sleep(RETRY_SECS)
    return _try_to_save(session, saver, model_dir, step)


def _try_to_save(
    session: tf.Session, saver: tf.train.Saver, model_dir: str, step: int
) -> str:
    temporary = pathlib.Path(model_dir, _SAVING)
    shutil.rmtree(str(temporary), ignore_errors=True)
    name = f"{PREFIX}{step}"
    try:
        temporary.mkdir(parents=True)
        saver.save(
            session, str(temporary / name), write_meta_graph=False, write_state=False
        )
        variable = _find_not_finite(str(temporary / name))
        if variable:
            raise DivergedError(
                f"step {step}: {variable} has values that are not finite; not saved, "
                f"the last good checkpoint is {latest(model_dir) or 'none'}"
            )
        return _publish(temporary, model_dir, name)
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = getattr(error, "message", error)  # TensorFlow's without its traces.
        free_mib = shutil.disk_usage(model_dir).free >> 20
        raise DataError(
            f"cannot save step {step} in {model_dir} ({free_mib} MiB free): {reason}; "
            f"the last good checkpoint is {latest(model_dir) or 'none'}"
        ) from error
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)


def _publish(temporary: pathlib.Path, model_dir: str, name: str) -> str:
    """Move a checkpoint's files into place and make it the newest; return its path."""
    # The index goes last: without it, data files are no checkpoint.
    files = sorted(temporary.glob(name + ".*"), key=lambda f: f.suffix == ".index")
    for file in files:
        os.replace(str(file), os.path.join(model_dir, file.name))
    point_at(model_dir, name)
    return os.path.join(model_dir, name)


def point_at(model_dir: str, name: str) -> None:
    """Make the ``checkpoint`` file name this checkpoint the newest, atomically."""
    others = [os.path.basename(path) for path in list_checkpoints(model_dir)]
    others = [other for other in others if other != name]
    lines = [f'model_checkpoint_path: "{name}"']
    lines += [f'all_model_checkpoint_paths: "{other}"' for other in [*others, name]]
    write_bytes(os.path.join(model_dir, _POINTER), "\n".join([*lines, ""]).encode())


def list_checkpoints(model_dir: str) -> List[str]:
    """Return the path prefixes of all checkpoints in a folder, oldest first."""
    found = pathlib.Path(model_dir).glob(PREFIX + "*.index")
    prefixes = [str(path)[: -len(".index")] for path in found]
    return sorted((p for p in prefixes if step_of(p) is not None), key=_sort_key)


def step_of(prefix: str) -> Optional[int]:
    """Return the global step in a checkpoint's name, or None."""
    match = re.search(re.escape(PREFIX) + r"(\d+)$", prefix)
    return int(match.group(1)) if match else None


def path_of(model_dir: str, step: int) -> Optional[str]:
    """Return the path prefix of the checkpoint of a step, None where there is none."""
    prefix = os.path.join(model_dir, f"{PREFIX}{step}")
    return prefix if os.path.exists(prefix + ".index") else None


def latest(model_dir: str) -> Optional[str]:
    """Return the newest checkpoint's path prefix by step, unread, or None."""
    checkpoints = list_checkpoints(model_dir)
    return checkpoints[-1] if checkpoints else None


def files_of(prefix: str) -> List[str]:
    """Return the paths of all files of a checkpoint, in a fixed order."""
    return sorted(glob.glob(glob.escape(prefix) + ".*"))


def find_problem(prefix: str) -> Optional[str]:
    """Read a checkpoint whole; return what is wrong with it, or None."""
    if not os.path.exists(prefix + ".index"):
        return "its index is not there"
    try:
        variable = _find_not_finite(prefix)
    except (tf.errors.OpError, ValueError) as error:
        return f"unreadable ({getattr(error, 'message', error)})"
    return f"{variable} has values that are not finite" if variable else None


def first_valid(candidates: Iterable[str], source: str, advice: str) -> str:
    """Return the first of some checkpoints that is valid; change nothing.

    Args:
        candidates: path prefixes; those passed over are named on stderr.
        source: where they are from, and ...
        advice: ... what to do where none is valid.

    Raises:
        DataError: none is.
    """
    problems = []
    for prefix in candidates:
        problem = find_problem(prefix)
        if problem is None:
            return prefix
        problems.append(f"{prefix}: {problem}")
        warn(f"passed over {problems[-1]}")
    raise DataError(problems, source, f"no valid checkpoint: {advice}")


def _find_not_finite(prefix: str) -> Optional[str]:
    """Read a checkpoint whole; return a variable that is not finite, or None.

    Raises:
        OpError, ValueError: it cannot be read.
    """
    reader = tf.train.load_checkpoint(prefix)
    dtypes = reader.get_variable_to_dtype_map()
    # Before memory is taken: an index from elsewhere can declare any shape.
    declared_bytes = sum(
        np.prod(shape, dtype=np.float64) * dtypes[name].size
        for name, shape in reader.get_variable_to_shape_map().items()
    )
    stored_bytes = sum(map(os.path.getsize, _data_files(prefix)))
    if declared_bytes > stored_bytes:
        raise ValueError(f"{declared_bytes:.0f} bytes declared, {stored_bytes} stored")
    for name, dtype in dtypes.items():
        value = reader.get_tensor(name)
        if dtype.is_floating and not np.isfinite(value).all():
            return name
    return None


def warn_of_damage(prefix: str, problem: str) -> None:
    """Say on stderr that a checkpoint has been put aside."""
    warn(f"damaged, moved to quarantine/: {prefix}: {problem}")


def newest_valid(
    model_dir: str, on_damage: Callable[[str, str], None] = warn_of_damage
) -> Optional[str]:
    """Return the newest checkpoint that can be trusted; None in a new folder.

    Damaged ones that are newer than a valid one are moved to ``quarantine/``, and
    ``checkpoint`` points at the one returned.

    Args:
        model_dir: of the run.
        on_damage: called with path prefix and problem of each one that was moved.

    Raises:
        DataError: there are or have been checkpoints, and none of them is valid.  They
            stay where they are, so that no later run starts from scratch unasked.
    """
    problems: Dict[str, str] = {}
    listed = set(list_checkpoints(model_dir)) | set(_announced(model_dir))
    for prefix in sorted(listed, key=_sort_key, reverse=True):
        problem = find_problem(prefix)
        if problem is None:
            _quarantine(problems, on_damage)
            point_at(model_dir, os.path.basename(prefix))
            return prefix
        problems[prefix] = problem
    pointer = os.path.join(model_dir, _POINTER)
    if problems or os.path.exists(pointer):
        lines = [f"{prefix}: {problem}" for prefix, problem in problems.items()]
        advice = (
            f"restore a backup, train in a new --model_dir, or delete {pointer} and "
            f"{PREFIX}* to start from scratch"
        )
        raise DataError(lines, f"{model_dir} has no valid checkpoint", advice)
    return None


def _announced(model_dir: str) -> List[str]:
    """Return the checkpoint of this folder that ``checkpoint`` names, there or not."""
    pointer = pathlib.Path(model_dir, _POINTER)
    if not pointer.is_file():
        return []
    pattern = rb'^model_checkpoint_path: "(?:.*/)?(model\.ckpt-\d+)"'
    match = re.search(pattern, pointer.read_bytes(), re.MULTILINE)
    # Spelt as in list_checkpoints.
    return [str(pointer.with_name(match.group(1).decode()))] if match else []


def restoring_scaffold(checkpoint: Optional[str]) -> Optional[tf.train.Scaffold]:
    """Return a scaffold for a training graph that has more than its checkpoint.

    A run may go on with another precision: the state of loss scaling then starts anew,
    everything else is restored.

    Args:
        checkpoint: path prefix that the session will restore; None: nothing.

    Returns:
        None where nothing is missing.

    Raises:
        ConfigError: The checkpoint does not fit the graph otherwise, see ``check_fit``.
    """
    if checkpoint is None:
        return None
    scaling = [v for v in tf.global_variables() if v.op.name.startswith("loss_scale/")]
    check_fit(checkpoint, [v for v in tf.global_variables() if v not in scaling])
    stored = tf.train.load_checkpoint(checkpoint).get_variable_to_dtype_map()
    # An NPU counts in int32 where CPUs and GPUs count in int64.
    missing = [v for v in scaling if stored.get(v.op.name) != v.dtype.base_dtype]
    if not missing:
        return None
    found = [v for v in tf.global_variables() if v not in missing]
    initialize = [tf.train.Scaffold.default_local_init_op()]
    return tf.train.Scaffold(
        saver=tf.train.Saver(found),
        ready_for_local_init_op=tf.report_uninitialized_variables(found),
        local_init_op=tf.group(*initialize, *(v.initializer for v in missing)),
    )


def check_fit(checkpoint: str, variables: Iterable[tf.Variable]) -> None:
    """Check that a checkpoint has all variables of a graph in their shapes.

    Args:
        checkpoint: Path prefix of the checkpoint.
        variables: Variables of the graph.

    Raises:
        ConfigError: It has not, because the network or its settings are other ones.
    """
    reader = tf.train.load_checkpoint(checkpoint)
    shapes = reader.get_variable_to_shape_map()
    problems = []
    for variable in variables:
        name, shape = variable.op.name, variable.shape.as_list()
        if name not in shapes:
            problems.append(f"has no {name}")
        elif shapes[name] != shape:
            problems.append(f"has {name} of the shape {shapes[name]}, not {shape}")
    if problems:
        raise ConfigError(
            f"{', '.join(problems[:5])}: it was made with another configuration, or "
            "the network has changed since; use those, or another --model_dir",
            checkpoint,
        )


def _quarantine(
    problems: Dict[str, str], on_damage: Callable[[str, str], None]
) -> None:
    for prefix, problem in problems.items():
        folder = pathlib.Path(prefix).parent / "quarantine"
        folder.mkdir(exist_ok=True)
        for file in files_of(prefix):
            os.replace(file, str(folder / os.path.basename(file)))
        on_damage(prefix, problem)


def delete_old(model_dir: str, num_to_keep: int) -> None:
    """Keep the newest ``num_to_keep`` checkpoints and the best one."""
    best = best_of(model_dir)
    doomed = [p for p in list_checkpoints(model_dir)[:-num_to_keep] if p != best]
    for prefix in doomed:
        # The index first: a checkpoint that is half deleted must not look whole.
        for file in [prefix + ".index", *_data_files(prefix)]:
            os.remove(file)
    newest = latest(model_dir)
    if doomed and newest:
        point_at(model_dir, os.path.basename(newest))


def note_best(model_dir: str, step: int, accuracy: float) -> None:
    """Record the checkpoint of ``step`` as the best if it is more accurate."""
    if best_of(model_dir) and accuracy <= _read_best(model_dir)["top_1_accuracy"]:
        return
    record = {"checkpoint": f"{PREFIX}{step}", "step": step, "top_1_accuracy": accuracy}
    write_bytes(os.path.join(model_dir, _BEST), encode_json(record))


def best_of(model_dir: str) -> Optional[str]:
    """Return the path prefix of the most accurate checkpoint, if it is still there."""
    record = _read_best(model_dir)
    if not record:
        return None
    # Spelt as in list_checkpoints.
    prefix = str(pathlib.Path(model_dir, f"{PREFIX}{record['step']}"))
    return prefix if os.path.exists(prefix + ".index") else None


def _read_best(model_dir: str) -> Dict[str, Any]:
    """Return what ``best.json`` says, empty where it is not there.

    Raises:
        DataError: it is damaged.
    """
    file = pathlib.Path(model_dir, _BEST)
    if not file.exists():
        return {}
    try:
        record = json.loads(file.read_text())
        return {
            "step": int(record["step"]),
            "top_1_accuracy": float(record["top_1_accuracy"]),
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"damaged ({error!r}): delete it", str(file)) from error


def _data_files(prefix: str) -> List[str]:
    pattern = os.path.basename(prefix) + ".data-*"
    return [str(path) for path in pathlib.Path(prefix).parent.glob(pattern)]


def _sort_key(prefix: str) -> int:
    step = step_of(prefix)
    assert step is not None
    return step
