"""What the record of an exported model names in place of a user's network.

The graph is in the SavedModel: whoever uses it does not need the file of the network.
"""

from typing import Any

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks.network import Network


def _build(*_: Any) -> Any:
    raise ConfigError(
        "an exported model has no network to build: give the run's folder"
    )


network = Network(name="exported", build=_build, layer_names=("head",))
