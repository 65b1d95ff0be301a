"""Checkpoints: written whole or not at all, finite, the newest valid one is used.

The names of their files are known here without TensorFlow; ``store`` saves and deletes,
``restore`` finds the checkpoint that can be trusted.
"""

from alexnet_estimator.checkpoints.names import (
    PREFIX,
    data_files,
    files_of,
    latest,
    list_checkpoints,
    path_of,
    step_of,
)
