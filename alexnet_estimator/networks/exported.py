"""The network in the record of an exported model, in place of a user's network.

The SavedModel holds the graph, so that using it does not need the file of the network.
"""

from typing import Any

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks.network import Network


def _build(*_: Any) -> Any:
    raise ConfigError(
        "an exported model has no network to build: give the folder of the run"
    )


network = Network(name="exported", build=_build, layer_names=("head",))
