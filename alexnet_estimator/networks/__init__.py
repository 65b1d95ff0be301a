"""The networks that can be trained: what the job has to know of each, and their graphs.

No TensorFlow is imported here; ``graphs`` and ``alexnet_graph`` need it.
"""

from alexnet_estimator.networks.network import Network
from alexnet_estimator.networks.registry import (
    DEFAULT,
    EXPORTED,
    find_network,
    is_file_name,
)

__all__ = ["DEFAULT", "EXPORTED", "Network", "find_network", "is_file_name"]
