"""Saving of checkpoints and deletion of old ones."""

import os
import time

from alexnet_estimator.checkpoints.best import best_of
from alexnet_estimator.checkpoints.names import (
    PREFIX,
    SAVING,
    data_files,
    describe_latest,
    for_tensorflow,
    latest,
    list_checkpoints,
    point_at,
    remove_unfinished,
)
from alexnet_estimator.checkpoints.restore import find_not_finite
from alexnet_estimator.console import warn
from alexnet_estimator.disk import describe_space
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError, DivergedError

RETRY_SECS = 5.0


def save(session: tf.Session, saver: tf.train.Saver, model_dir: str, step: int) -> str:
    """Save the variables of a session as the newest checkpoint.

    The files are written into a temporary folder and read back.  They are moved to the
    folder of the run only if they are complete and finite, and then the ``checkpoint``
    file is made to name them.  A failed attempt is repeated once.

    Returns:
        The path prefix of the new checkpoint.

    Raises:
        DivergedError: A variable is not finite; the previous checkpoint stays newest.
        DataError: The files could not be written or read back.
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
    temporary, name = os.path.join(model_dir, SAVING), f"{PREFIX}{step}"
    prefix = os.path.join(temporary, name)
    remove_unfinished(model_dir)
    try:
        os.mkdir(temporary)
        for_saver = os.path.join(for_tensorflow(model_dir), SAVING, name)
        saver.save(session, for_saver, write_meta_graph=False, write_state=False)
        variable = find_not_finite(for_saver)
        if variable:
            raise DivergedError(
                f"step {step}: {variable} has values that are not finite; not saved, "
                + describe_latest(model_dir)
            )
        # The index is moved last: data files without an index are not a checkpoint, so
        # that an interruption here leaves no incomplete checkpoint.
        for path in [*data_files(prefix), prefix + ".index"]:
            os.replace(path, os.path.join(model_dir, os.path.basename(path)))
        point_at(model_dir, name)
        return os.path.join(model_dir, name)
    except (OSError, ValueError, tf.errors.OpError) as error:
        # After its first line, TensorFlow's message lists operations of the graph.
        reason = str(getattr(error, "message", error)).partition("\n")[0]
        raise DataError(
            f"cannot save step {step} in {model_dir} ({describe_space(model_dir)}): "
            f"{reason}; {describe_latest(model_dir)}"
        ) from error
    finally:
        remove_unfinished(model_dir)


def delete_old(model_dir: str, num_to_keep: int) -> None:
    """Delete all checkpoints except the newest ``num_to_keep`` and the best one.

    If one cannot be deleted, a warning is printed, and the others are still deleted.
    """
    best = best_of(model_dir)
    doomed = [p for p in list_checkpoints(model_dir)[:-num_to_keep] if p != best]
    for prefix in doomed:
        try:
            # The index is deleted first, so that a checkpoint whose deletion was
            # interrupted does not look complete.
            for file in [prefix + ".index", *data_files(prefix)]:
                os.remove(file)
        except OSError as error:
            warn(f"an old checkpoint cannot be deleted: {error}")
    newest = latest(model_dir)
    if doomed and newest:
        point_at(model_dir, os.path.basename(newest))
