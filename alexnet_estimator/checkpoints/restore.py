"""Finding and restoring of the newest valid checkpoint."""

import contextlib
import os
from typing import Any, Callable, Dict, Iterable, Iterator, Optional

import numpy as np

from alexnet_estimator.checkpoints import index
from alexnet_estimator.checkpoints.best import forget_best
from alexnet_estimator.checkpoints.names import (
    POINTER,
    PREFIX,
    data_files,
    files_of,
    find_announced,
    list_checkpoints,
    point_at,
    prefix_for_tensorflow,
    remove_unfinished,
    sort_key,
)
from alexnet_estimator.console import warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError


def find_problem(prefix: str) -> Optional[str]:
    """Read a whole checkpoint; return a description of its damage, or None."""
    if not os.path.exists(prefix + ".index"):
        return "its index is missing"
    try:
        variable = find_not_finite(prefix)
    except (tf.errors.OpError, ValueError, OSError) as error:
        return f"unreadable ({getattr(error, 'message', error)})"
    return f"{variable} has values that are not finite" if variable else None


def first_valid(candidates: Iterable[str], source: str, advice: str) -> str:
    """Return the first valid checkpoint; damaged ones stay where they are.

    Args:
        candidates: Path prefixes of checkpoints.  A warning is printed for each damaged
            one.
        source: Folder or path prefix that the user gave, for the error message.
        advice: Remedy for the error message.

    Raises:
        DataError: None of the checkpoints is valid.
    """
    problems = []
    for prefix in candidates:
        problem = find_problem(prefix)
        if problem is None:
            return prefix
        problems.append(f"{prefix}: {problem}")
        warn(f"skipped {problems[-1]}")
    raise DataError(problems, source, f"no valid checkpoint: {advice}")


def open_reader(prefix: str) -> Any:
    """Check the index of a checkpoint and return TensorFlow's reader for it.

    Raises:
        OpError, ValueError, OSError: The checkpoint cannot be read.
    """
    index.check(prefix + ".index", data_files(prefix))
    return tf.train.load_checkpoint(prefix_for_tensorflow(prefix))


def find_not_finite(prefix: str) -> Optional[str]:
    """Read a whole checkpoint; return the name of a variable that is not finite.

    Returns:
        The name of the first such variable, or None if all values are finite.

    Raises:
        OpError, ValueError, OSError: The checkpoint cannot be read.
    """
    reader = open_reader(prefix)
    for name, dtype in reader.get_variable_to_dtype_map().items():
        value = reader.get_tensor(name)
        if dtype.is_floating and not np.isfinite(value).all():
            return name
    return None


def count_skipped(prefix: Optional[str]) -> int:
    """Return the number of steps that loss scaling skipped before a checkpoint.

    They have used batches too, although the global step does not count them.
    """
    if prefix is None:
        return 0
    reader, name = open_reader(prefix), "loss_scale/num_skipped"
    return int(reader.get_tensor(name)) if reader.has_tensor(name) else 0


def warn_of_damage(prefix: str, problem: str) -> None:
    """Print a warning that a checkpoint was moved to ``quarantine/``."""
    warn(f"damaged, moved to quarantine/: {prefix}: {problem}")


def newest_valid(
    model_dir: str, on_damage: Callable[[str, str], None] = warn_of_damage
) -> Optional[str]:
    """Return the newest valid checkpoint; None if the folder never had any.

    Damaged checkpoints that are newer are moved to ``quarantine/``, and the
    ``checkpoint`` file is made to name the returned one.

    Args:
        model_dir: Folder of the run.
        on_damage: Function called with the path prefix and the problem of each
            checkpoint that was moved.

    Raises:
        DataError: The folder has or had checkpoints, but none of them is valid.  They
            are not moved, because a later run would then take the folder for a new one
            and start from scratch.
    """
    remove_unfinished(model_dir)
    problems: Dict[str, str] = {}
    listed = set(list_checkpoints(model_dir)) | set(find_announced(model_dir))
    for prefix in sorted(listed, key=sort_key, reverse=True):
        problem = find_problem(prefix)
        if problem is not None:
            problems[prefix] = problem
            continue
        for damaged, problem in problems.items():
            folder = os.path.join(model_dir, "quarantine")
            os.makedirs(folder, exist_ok=True)
            for file in files_of(damaged):
                os.replace(file, os.path.join(folder, os.path.basename(file)))
            forget_best(model_dir, sort_key(damaged))
            on_damage(damaged, problem)
        point_at(model_dir, os.path.basename(prefix))
        return prefix
    pointer = os.path.join(model_dir, POINTER)
    if problems or os.path.exists(pointer):
        lines = [f"{prefix}: {problem}" for prefix, problem in problems.items()]
        advice = (
            f"restore a backup, train in a new --model_dir, or delete {pointer} and "
            f"{PREFIX}* to start from scratch"
        )
        raise DataError(lines, f"{model_dir} has no valid checkpoint", advice)
    return None


@contextlib.contextmanager
def noticing_deletion(checkpoint: Optional[str]) -> Iterator[None]:
    """Explain an error in the block if training has deleted the checkpoint meanwhile.

    Args:
        checkpoint: Path prefix of the checkpoint that the block reads; None if it reads
            none.

    Raises:
        DataError: The block failed, and the checkpoint no longer exists.
    """
    try:
        yield
    except (tf.errors.OpError, ValueError, OSError) as error:
        if checkpoint is None or os.path.exists(checkpoint + ".index"):
            raise
        raise DataError(
            "it was deleted meanwhile, because training deletes old checkpoints: run "
            "the same command again",
            checkpoint,
        ) from error


def restoring_scaffold(checkpoint: Optional[str]) -> Optional[tf.train.Scaffold]:
    """Return a scaffold for a training graph with variables that a checkpoint lacks.

    A run may continue with another precision.  The state of loss scaling is then
    initialized, and all other variables are restored.

    Args:
        checkpoint: Path prefix that the session will restore; None if it restores none.

    Returns:
        The scaffold, or None if the checkpoint has all variables.

    Raises:
        ConfigError: Another variable is missing or has another shape, see
            ``check_fit``.
    """
    if checkpoint is None:
        return None
    scaling = [v for v in tf.global_variables() if v.op.name.startswith("loss_scale/")]
    check_variables(checkpoint, [v for v in tf.global_variables() if v not in scaling])
    stored = open_reader(checkpoint).get_variable_to_dtype_map()
    # The counters are int32 on an NPU and int64 on CPUs and GPUs.
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


def check_variables(checkpoint: str, variables: Iterable[tf.Variable]) -> None:
    """Check that a checkpoint has all variables of a graph in the same shapes.

    Args:
        checkpoint: Path prefix of the checkpoint.
        variables: Variables of the graph.

    Raises:
        ConfigError: A variable is missing or has another shape, because the network or
            its settings differ.
    """
    reader = open_reader(checkpoint)
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
            f"{', '.join(problems[:5])}: it was written with another configuration or "
            "another version of the network; use that one, or another --model_dir",
            checkpoint,
        )
