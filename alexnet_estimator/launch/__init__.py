"""The launcher, which starts and watches one process for each rank of this server.

This package does not import TensorFlow.
"""

from alexnet_estimator.launch.alone import watching_alone
from alexnet_estimator.launch.before_tensorflow import prepare_tensorflow
from alexnet_estimator.launch.group import Group, Rank, make_ranks
from alexnet_estimator.launch.job import BACKENDS, run
from alexnet_estimator.launch.options import Options
from alexnet_estimator.launch.signals import prepare_signals
from alexnet_estimator.launch.supervision import supervise
from alexnet_estimator.launch.verdict import Outcome

__all__ = [
    "BACKENDS",
    "Group",
    "Options",
    "Outcome",
    "Rank",
    "make_ranks",
    "prepare_signals",
    "prepare_tensorflow",
    "run",
    "supervise",
    "watching_alone",
]
