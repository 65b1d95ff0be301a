"""Choice of the layers that a run takes over from a source, and their restoration."""

import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.console import list_some
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import encode_json, read_json, write_bytes
from alexnet_estimator.networks import Network, find_network
from alexnet_estimator.networks.graphs import Shapes
from alexnet_estimator.warm_start.sources import (
    AVERAGE,
    PIXEL_RULES,
    Source,
    Variables,
    digest_of,
)

WARM_START_FILE = "warm_start.json"


class WarmStart(NamedTuple):
    """The description of a warm start.

    Attributes:
        source: Absolute path of the file, or absolute path prefix of the checkpoint.
        sha256: SHA-256 (hex) of the source's files.
        restored: Names of the restored layers, which are the first ones of the network.
        new: Names of the layers that are not restored, each with the reason.
        left_out: Names in the source that are not used.
        notes: Remarks for the user, for instance on settings with which the same
            weights compute other results.
    """

    source: str
    sha256: str
    restored: List[str]
    new: Dict[str, str]
    left_out: List[str]
    notes: List[str]


def choose_layers(
    source: Source,
    shapes: Shapes,
    class_names: Sequence[str],
    config: Config,
) -> WarmStart:
    """Decide which layers are taken over.

    Args:
        source: Trained network.
        shapes: Shapes of all variables of the new network, by the names of the
            variables.
        class_names: Names of the classes of the new data.
        config: Configuration of the new run.

    Raises:
        DataError: No layer fits.
        ConfigError: ``warm_start.frozen_until`` names a layer that does not fit.
    """
    network = find_network(config.model.network)
    new = _find_new_layers(source, shapes, class_names, network)
    restored = [layer for layer in network.layer_names if layer not in new]
    if not any(layer in source.layers for layer in restored):
        first = network.layer_names[len(restored)]
        raise DataError(
            f"no layer of it fits: {first} {new[first]}; use the source's settings of "
            "the section model",
            source.path,
        )
    frozen_until = config.warm_start.frozen_until
    if frozen_until in new:
        raise ConfigError(
            f"warm_start.frozen_until is {frozen_until!r}, but {frozen_until} is new: "
            f"{new[frozen_until]}; the last layer taken over is {restored[-1]}",
            source.path,
        )
    left_out = [name for name in source.layers if name not in restored]
    return WarmStart(
        os.path.abspath(source.path),
        digest_of(source.path),
        restored,
        new,
        [*left_out, *source.unused],
        _notes(source, not new, network, config),
    )


def _find_new_layers(
    source: Source, shapes: Shapes, class_names: Sequence[str], network: Network
) -> Dict[str, str]:
    """Return the layers that cannot be taken over, each with the reason.

    A layer is useful only on top of the layers that it was trained with.  Therefore all
    layers above a new layer are new as well.
    """
    new: Dict[str, str] = {}
    for layer in network.layer_names:
        scope = f"{network.name}/{layer}/"
        ours = {
            name[len(scope) :]: shape
            for name, shape in shapes.items()
            if name.startswith(scope)
        }
        is_head = layer == network.head
        reason = _find_misfit(source.layers.get(layer, {}), ours, is_head)
        names = source.class_names
        if not reason and is_head and names and list(names) != list(class_names):
            reason = f"is for {_some(class_names)} and not {_some(names)}"
        if new:
            reason = f"follows {next(iter(new))}, which is new"
        if reason:
            new[layer] = reason
    return new


def _find_misfit(theirs: Variables, ours: Shapes, is_head: bool) -> str:
    """Return the reason why a layer cannot be taken over; empty if it can."""
    if ours and not theirs:
        return "is not in the source"
    if set(ours) != set(theirs):
        return f"has {_some(sorted(ours))} and not {_some(sorted(theirs))}"
    for name, shape in sorted(ours.items()):
        other = theirs[name].shape
        if shape == other:
            continue
        if is_head and len(shape) == len(other) and shape[:-1] == other[:-1]:
            return f"has {shape[-1]} classes, {other[-1]} in the source"
        return f"has the shape {shape}, {other} in the source"
    return ""


def _some(names: Sequence[str]) -> str:
    return list_some(names, 3, is_counted=False)


def _notes(
    source: Source, has_head: bool, network: Network, config: Config
) -> List[str]:
    notes = []
    if source.is_averaged:
        notes.append("the moving averages of the source's weights are used")
    if has_head and not source.class_names:
        notes.append("the source does not name its classes: they must be in this order")
    # A fixed setting determines shapes, which were compared already.
    names = [name for name, field in network.settings.items() if not field.is_fixed]
    compared = [("model", name, source.settings) for name in names]
    if not network.pixel_layer:
        compared += [("data", name, source.data) for name in PIXEL_RULES]
    differences = []
    for section, name, theirs in compared:
        ours = _text(config[section][name])
        other = _text(theirs[name]) if name in theirs else ours
        if ours != other:
            differences.append(f"{section}.{name} is {ours}, {other} in the source")
    if differences:
        text = "; ".join(differences)
        notes.append(f"{text}: these settings should have the same values")
    return notes


def weights_to_assign(
    source: Source, warm_start: WarmStart, config: Config
) -> Dict[str, np.ndarray]:
    """Return the initial values of the restored variables, by their names.

    Args:
        source: Trained network.
        warm_start: Description of the layers that are taken over.
        config: Resolved configuration of the new run.
    """
    network = find_network(config.model.network)
    weights: Dict[str, np.ndarray] = {}
    for layer in warm_start.restored:
        variables = source.layers.get(layer, {})
        if layer == network.pixel_layer:
            variables = fold_pixels(variables, source.data, config.data)
        for name, value in variables.items():
            weights[f"{network.name}/{layer}/{name}"] = value
    return weights


def fold_pixels(
    first_layer: Variables, theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> Variables:
    """Adapt the weights of the first layer to the way the new run prepares pixels.

    For pixels ``x``, means ``m`` and scale ``s`` of the source, the layer computes
    ``K (x - m) / s + b``.  It computes the same with the means ``m'`` and the scale
    ``s'`` of the new run if ``K' = K s' / s`` and ``b' = b + sum(K / s (m' - m))``, and
    if the channels of ``K`` are put in the new order.  This is exact because the layer
    does not pad its input.

    Args:
        first_layer: ``kernel``, float32 [height, width, 3, outputs], and ``bias``,
            float32 [outputs].
        theirs: Section ``data`` of the source.
        ours: Resolved section ``data`` of the new run.

    Returns:
        The new ``kernel`` and ``bias``, in the same shapes.
    """
    kernel, bias = (first_layer[n].astype(np.float64) for n in ("kernel", "bias"))
    shift = np.subtract(ours["mean_rgb"], theirs["mean_rgb"])
    if theirs["channel_order"] == "bgr":
        kernel = kernel[:, :, ::-1]
    bias = bias + np.einsum("hwio,i->o", kernel, shift) / theirs["pixel_scale"]
    kernel = kernel * (ours["pixel_scale"] / theirs["pixel_scale"])
    if ours["channel_order"] == "bgr":
        kernel = kernel[:, :, ::-1]
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


def initializing_scaffold(
    read_weights: Callable[[], Mapping[str, np.ndarray]]
) -> tf.train.Scaffold:
    """Return a scaffold that initializes variables with given weights.

    The moving averages of these variables get the same values.  The values are fed to
    the initializers that the variables have, so no operation is added to the graph.

    Args:
        read_weights: Function that returns the weights.  It is called only when a
            session is initialized, because the weights need much memory.
    """
    variables = tf.global_variables()

    def initialize(_: tf.train.Scaffold, session: tf.Session) -> None:
        weights = read_weights()
        for variable in variables:
            value = weights.get(variable.op.name.replace(AVERAGE, ""))
            if value is not None:
                initializer = variable.initializer
                session.run(initializer, {initializer.inputs[1]: value})

    return tf.train.Scaffold(init_fn=initialize)


def write_record(warm_start: WarmStart, model_dir: str) -> None:
    """Write ``warm_start.json``, which tells a resumed run its restored layers."""
    path = os.path.join(model_dir, WARM_START_FILE)
    write_bytes(path, encode_json(warm_start._asdict(), indent=2))


def read_record(model_dir: str, network: Network) -> WarmStart:
    """Read the file that ``write_record`` wrote.

    Raises:
        DataError: The file is damaged or missing.
    """
    path = os.path.join(model_dir, WARM_START_FILE)
    try:
        warm_start = WarmStart(**read_json(path))
        num_restored = len(warm_start.restored)
        if warm_start.restored != list(network.layer_names[:num_restored]):
            raise ValueError(f"restored is {warm_start.restored}")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"damaged or missing ({error!r}): restore it, or start again in another "
            "--model_dir",
            path,
        ) from error
    return warm_start


def _text(value: Any) -> str:
    """Return a value as text.

    A tuple and a list have the same text, because a tuple is a list in JSON.
    """
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_text, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
