"""The graph and the variables of the network that a configuration chooses."""

from typing import Callable, Dict, Iterable, List, Optional, Tuple

import numpy as np
from ml_collections import ConfigDict

from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks.network import Network
from alexnet_estimator.networks.registry import explain, find_network

Dropout = Callable[[tf.Tensor, float, str], tf.Tensor]
Shapes = Dict[str, Tuple[int, ...]]


def build_logits(
    images: tf.Tensor,
    num_classes: int,
    settings: ConfigDict,
    dropout: Optional[Dropout] = None,
    compute_dtype: tf.DType = tf.float32,
) -> tf.Tensor:
    """Build the network that the settings choose.

    Args:
        images: float32 [batch, size, size, 3], normalised.
        num_classes: Number of outputs.
        settings: Section ``model`` of the configuration.
        dropout: Dropout function, see ``Network.build``; None outside of training.
        compute_dtype: Dtype of convolutions and matrix products.

    Returns:
        float32 [batch, num_classes], logits.

    Raises:
        ConfigError: A user's network raises an error, has variables outside of its
            layers, or does not return logits.
    """
    network = find_network(settings.network)
    before = set(tf.global_variables())
    with tf.variable_scope(network.name) as scope:
        try:
            logits = network.build(
                images, num_classes, settings, dropout, compute_dtype
            )
        except Exception as error:
            if not network.sha256:
                raise  # It is a network of this package.
            raise explain(error, network.source) from error
        made = [v.op.name for v in tf.global_variables() if v not in before]
    problems = _misplaced(network, scope.name, made)
    first = network.pixel_layer
    if first and made:
        parts = (f"{scope.name}/{first}/kernel", f"{scope.name}/{first}/bias")
        missing = [name for name in parts if name not in made]
        problems += [f"pixel_layer is {first!r}: it has no {name}" for name in missing]
    shape = getattr(logits, "shape", None)
    if shape is None or shape.ndims != 2 or shape[1].value != num_classes:
        problems.append(
            f"build returned {logits}: must be logits of the shape "
            f"[batch, {num_classes}]"
        )
    if problems:
        raise ConfigError(problems, f"network {network.source}")
    return tf.cast(logits, tf.float32)


def _misplaced(network: Network, scope: str, names: Iterable[str]) -> List[str]:
    """Return a message for each variable that belongs to none of the layers."""
    start = len(scope) + 1
    strange = [
        name
        for name in names
        if not name.startswith(f"{scope}/")
        or name[start:].split("/")[0] not in network.layer_names
        or "/" not in name[start:]
    ]
    if not strange:
        return []
    layers = ", ".join(network.layer_names)
    return [
        f"the variable {name} is in none of the layers {layers}: create it in "
        "tf.variable_scope(LAYER), where LAYER is one of layer_names"
        for name in strange
    ]


def layer_of(variable: tf.Variable) -> str:
    """Return the layer of a variable, e.g. ``conv1`` of ``lenet/conv1/kernel``."""
    return variable.op.name.split("/")[1]


def variable_shapes(
    num_classes: int, image_size: int, settings: ConfigDict
) -> Tuple[Shapes, Shapes]:
    """Return the shapes of the variables of a network, by name.

    Args:
        num_classes: Number of outputs.
        image_size: Height and width of the images in pixels.
        settings: Section ``model`` of the configuration.

    Returns:
        The shapes of the trained variables, e.g. of ``lenet/conv1/kernel``, and those
        of the others, such as the statistics of batch normalisation.
    """
    with tf.Graph().as_default():
        images = tf.zeros([1, image_size, image_size, 3])
        build_logits(images, num_classes, settings)
        shapes = {v.op.name: tuple(v.shape.as_list()) for v in tf.global_variables()}
        trained = [v.op.name for v in tf.trainable_variables()]
    weights = {name: shapes.pop(name) for name in trained}
    return weights, shapes


def count_parameters(num_classes: int, image_size: int, settings: ConfigDict) -> int:
    """Return the number of trainable parameters, counted in the graph."""
    weights, _ = variable_shapes(num_classes, image_size, settings)
    return int(sum(np.prod(shape) for shape in weights.values()))
