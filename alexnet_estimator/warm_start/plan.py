"""What is taken over from a source, what is not and why; and the taking over."""

import json
import os
import pathlib
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import encode_json, write_bytes
from alexnet_estimator.schema import LAYER_NAMES
from alexnet_estimator.warm_start.caffe_file import Weights
from alexnet_estimator.warm_start.sources import AVERAGE, Source, digest_of

RECORD_FILE = "warm_start.json"
_LRN = ("lrn_radius", "lrn_bias", "lrn_alpha", "lrn_beta")


class WarmStart(NamedTuple):
    """What a run took over from another network.

    Attributes:
        source: absolute path of the file or of the checkpoint (prefix).
        sha256: of the source's files.
        restored: layers, from conv1 upwards without a gap.
        new: the other layers, each with the reason.
        left_out: what of the source is not used.
        notes: on what makes the same weights compute something else.
    """

    source: str
    sha256: str
    restored: List[str]
    new: Dict[str, str]
    left_out: List[str]
    notes: List[str]


def plan_warm_start(
    source: Source,
    shapes: Mapping[str, Tuple[int, ...]],
    class_names: Sequence[str],
    config: Config,
) -> WarmStart:
    """Decide what is taken over.

    Args:
        source: a trained network.
        shapes: of the new network's weights, see ``model_fn.weight_shapes``.
        class_names: of the new data.
        config: of the new run.

    Raises:
        DataError: nothing fits.
        ConfigError: layers that do not fit are to be frozen.
    """
    new = _find_new_layers(source, shapes, class_names)
    restored = [layer for layer in LAYER_NAMES if layer not in new]
    if not restored:
        raise DataError(
            f"nothing of it fits: conv1 {new['conv1']}; use the source's settings of "
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
        _notes(source, restored, config),
    )


def _find_new_layers(
    source: Source, shapes: Mapping[str, Tuple[int, ...]], class_names: Sequence[str]
) -> Dict[str, str]:
    """Return the layers that cannot be taken over, each with the reason.

    A layer is of use on top of those that it was trained on: all above a new one are
    new as well.
    """
    new: Dict[str, str] = {}
    for layer in LAYER_NAMES:
        reason = _find_misfit(layer, source, shapes, class_names)
        if new:
            reason = f"stands on {next(iter(new))}, which is new"
        if reason:
            new[layer] = reason
    return new


def _find_misfit(
    layer: str,
    source: Source,
    shapes: Mapping[str, Tuple[int, ...]],
    class_names: Sequence[str],
) -> str:
    """Return why a layer cannot be taken over; empty: it can."""
    if layer not in source.layers:
        return "is not in the source"
    ours = [shapes[f"alexnet/{layer}/{part}"] for part in ("kernel", "bias")]
    theirs = [array.shape for array in source.layers[layer]]
    if ours[1] != theirs[1] and layer == LAYER_NAMES[-1] and len(theirs[1]) == 1:
        return f"has {ours[1][0]} classes, {theirs[1][0]} in the source"
    if ours != theirs:
        index = 0 if ours[0] != theirs[0] else 1
        return f"has the shape {ours[index]}, {theirs[index]} in the source"
    if layer == LAYER_NAMES[-1] and source.class_names:
        if list(source.class_names) != list(class_names):
            return f"is for {_some(class_names)} and not {_some(source.class_names)}"
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _notes(source: Source, restored: Sequence[str], config: Config) -> List[str]:
    notes = []
    if source.is_averaged:
        notes.append("the moving averages of the source's weights are used")
    if restored[-1] == LAYER_NAMES[-1] and not source.class_names:
        notes.append("the source does not name its classes: they must be in this order")
    theirs, ours = source.config.model, config.model
    differences = [
        f"model.{name} is {ours[name]:g}, {theirs[name]:g} in the source"
        for name in _LRN
        if ours[name] != theirs[name]
    ]
    if differences:
        notes.append("; ".join(differences) + ": set it alike for the same features")
    return notes


def weights_to_assign(
    source: Source, warm_start: WarmStart, data: Config
) -> Dict[str, np.ndarray]:
    """Return the weights to start with, by the name of their variables.

    Args:
        source: a trained network.
        warm_start: the plan made for it.
        data: the configuration's ``data`` section, resolved.
    """
    weights: Dict[str, np.ndarray] = {}
    for layer in warm_start.restored:
        kernel, bias = source.layers[layer]
        if layer == "conv1":
            kernel, bias = fold_pixels((kernel, bias), source.config.data, data)
        weights[f"alexnet/{layer}/kernel"] = kernel
        weights[f"alexnet/{layer}/bias"] = bias
    return weights


def fold_pixels(conv1: Weights, theirs: Config, ours: Config) -> Weights:
    """Return first-layer weights that answer to our pixels as before to theirs.

    With pixels ``x``, means ``m`` and scales ``s``, the layer computes
    ``K (x - m) / s + b``.  As it pads nothing, equal answers for all ``x`` need
    ``K' = K s' / s`` and ``b' = b + sum(K / s (m' - m))``, with the channels in order.

    Args:
        conv1: kernel float32 [height, width, 3, outputs] and bias float32 [outputs].
        theirs: section ``data`` of the network that the weights are from.
        ours: section ``data`` of the new one, resolved.
    """
    kernel, bias = (array.astype(np.float64) for array in conv1)
    shift = np.subtract(ours.mean_rgb, theirs.mean_rgb)
    if theirs.channel_order == "bgr":
        kernel = kernel[:, :, ::-1]
    bias = bias + np.einsum("hwio,i->o", kernel, shift) / theirs.pixel_scale
    kernel = kernel * (ours.pixel_scale / theirs.pixel_scale)
    if ours.channel_order == "bgr":
        kernel = kernel[:, :, ::-1]
    return kernel.astype(np.float32), bias.astype(np.float32)


def initializing_scaffold(
    read_weights: Callable[[], Mapping[str, np.ndarray]]
) -> tf.train.Scaffold:
    """Return a scaffold whose session starts with other weights than the initializers'.

    Moving averages start with them, too.  The graph stays as it is: the values are fed
    to the variables' own initializers.

    Args:
        read_weights: called when a session is made, since they need much memory.
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
    """Write ``warm_start.json``, from which a resumed run knows its layers."""
    path = os.path.join(model_dir, RECORD_FILE)
    write_bytes(path, encode_json(warm_start._asdict(), indent=2))


def read_record(model_dir: str) -> WarmStart:
    """Read what ``write_record`` wrote.

    Raises:
        DataError: it is damaged or not there.
    """
    file = pathlib.Path(model_dir, RECORD_FILE)
    try:
        record: Dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        warm_start = WarmStart(**record)
        if warm_start.restored != list(LAYER_NAMES[: len(warm_start.restored)]):
            raise ValueError(f"restored is {warm_start.restored}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"damaged or gone ({error!r}): restore it, or start again in another "
            "--model_dir",
            str(file),
        ) from error
    return warm_start
