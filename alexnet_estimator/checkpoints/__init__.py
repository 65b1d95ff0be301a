"""Saving, finding and restoring of checkpoints.

A checkpoint is either complete and finite, or it is not saved.  A run continues from
its newest valid checkpoint.  ``names`` needs no TensorFlow, ``store`` saves and deletes
checkpoints, and ``restore`` finds the newest valid one.
"""

from alexnet_estimator.checkpoints.names import (
    PREFIX,
    data_files,
    describe_latest,
    files_of,
    latest,
    list_checkpoints,
    path_of,
    step_of,
)
