"""Start one process for each rank of this server and see all of them to their end.

No TensorFlow is imported here.
"""

from alexnet_estimator.launch.environment import Rank, is_rank_process, plan
from alexnet_estimator.launch.job import run
from alexnet_estimator.launch.supervision import Options, supervise

__all__ = ["Options", "Rank", "is_rank_process", "plan", "run", "supervise"]
