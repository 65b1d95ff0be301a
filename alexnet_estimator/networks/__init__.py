"""The networks that can be trained: their descriptions and their graphs.

This package does not import TensorFlow; ``graphs`` and ``alexnet_graph`` do.
"""

from alexnet_estimator.networks.network import Network
from alexnet_estimator.networks.registry import (
    DEFAULT,
    EXPORTED,
    find_network,
    is_file_name,
)

__all__ = ["DEFAULT", "EXPORTED", "Network", "find_network", "is_file_name"]
