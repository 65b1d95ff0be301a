"""Where weights come from: a run, a checkpoint, a file converted from Caffe."""

import json
import os
from typing import Any, Dict, NamedTuple, Tuple

from alexnet_estimator import checkpoints
from alexnet_estimator.config import RECORD_FILE, Config, config_from, load_resolved
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import sha256_of
from alexnet_estimator.schema import LAYER_NAMES
from alexnet_estimator.warm_start.caffe_file import Weights, read_caffe_file

# What TensorFlow appends to the name of a variable's moving average.
AVERAGE = "/ExponentialMovingAverage"
# Of Caffe's bvlc_alexnet: pixels from 0 to 255 minus these, blue first; its alpha of
# 1e-4 is divided by the 5 channels of a sum, TensorFlow's is not.
_CAFFE: Dict[str, Dict[str, Any]] = {
    "data": {
        "mean_rgb": (123.0, 117.0, 104.0),
        "pixel_scale": 1.0,
        "channel_order": "bgr",
    },
    "model": {
        "lrn_radius": 2,
        "lrn_bias": 1.0,
        "lrn_alpha": 2e-5,
        "lrn_beta": 0.75,
    },
}


class Source(NamedTuple):
    """A trained network.

    Attributes:
        path: of the file or of the checkpoint (prefix) that was read.
        layers: float32 kernel and bias by layer; not all need be there.
        config: its sections ``data`` and ``model`` belong to these weights.
        class_names: of fc8's outputs; empty: not known.
        is_averaged: the weights are moving averages.
        unused: what else it holds.
    """

    path: str
    layers: Dict[str, Weights]
    config: Config
    class_names: Tuple[str, ...] = ()
    is_averaged: bool = False
    unused: Tuple[str, ...] = ()


def locate(path: str) -> str:
    """Return the file or the checkpoint's path prefix that a user means.

    Args:
        path: of a run (its best checkpoint is taken, or else its newest valid one), of
            a checkpoint, or of a ``.npy`` file.

    Raises:
        ConfigError: it is none of these.
        DataError: the run has no valid checkpoint.
    """
    if os.path.isdir(path):
        best = checkpoints.best_of(path)
        newest = checkpoints.list_checkpoints(path)[::-1]
        return checkpoints.first_valid(
            [best, *newest] if best else newest,
            path,
            "give the folder of a run that has trained",
        )
    if os.path.isfile(path + ".index"):
        return checkpoints.first_valid([path], path, "choose another one")
    if os.path.isfile(path) and path.endswith(".npy"):
        return path
    what = "is neither a run, a checkpoint nor a .npy file" if is_there(path) else ""
    raise ConfigError(
        f"{what or 'is not there'}: --warm_start_from takes the folder of a run, the "
        "path prefix RUN/model.ckpt-STEP of a checkpoint, or bvlc_alexnet.npy",
        path,
    )


def open_source(path: str) -> Source:
    """Read a trained network whole.

    Args:
        path: see ``locate``.

    Raises:
        ConfigError: see ``locate``.
        DataError: it is damaged, or something else than an AlexNet.
    """
    return read_source(locate(path))


def read_source(path: str) -> Source:
    """Read a network from what ``locate`` has returned.

    Raises:
        DataError: it is damaged, or something else than an AlexNet.
    """
    source = _open_caffe(path) if path.endswith(".npy") else _open_checkpoint(path)
    if not source.layers:
        raise DataError(f"has no layer of {', '.join(LAYER_NAMES)}", path)
    return source


def digest_of(path: str) -> str:
    """Return SHA-256 (hex) of a file, or of all files of a checkpoint."""
    is_one = path.endswith(".npy")
    return sha256_of(*([path] if is_one else checkpoints.files_of(path)))


def is_there(path: str) -> bool:
    """Return whether a path is of a file, a folder or a checkpoint."""
    return os.path.exists(path) or bool(checkpoints.files_of(path))


def _open_caffe(path: str) -> Source:
    layers, unused = read_caffe_file(path)
    return Source(path, layers, config_from(_CAFFE), unused=tuple(unused))


def _open_checkpoint(prefix: str) -> Source:
    file = os.path.join(os.path.dirname(os.path.abspath(prefix)), RECORD_FILE)
    if not os.path.isfile(file):
        raise DataError(
            f"has no {RECORD_FILE} beside it, which says what its network sees: copy "
            "that as well",
            prefix,
        )
    config = load_resolved(file)
    if len(config.data.mean_rgb) != 3:
        raise DataError("has no data.mean_rgb, which every run records", file)
    reader = tf.train.load_checkpoint(prefix)
    stored = reader.get_variable_to_shape_map()
    layers, is_averaged = {}, False
    for layer in LAYER_NAMES:
        names = [f"alexnet/{layer}/{part}" for part in ("kernel", "bias")]
        if not all(name in stored for name in names):
            continue
        if all(name + AVERAGE in stored for name in names):
            names, is_averaged = [name + AVERAGE for name in names], True
        layers[layer] = (reader.get_tensor(names[0]), reader.get_tensor(names[1]))
    unused = ("global step and optimizer state",)
    return Source(prefix, layers, config, _class_names(file), is_averaged, unused)


def _class_names(file: str) -> Tuple[str, ...]:
    try:
        with open(file, encoding="utf-8") as stream:
            return tuple(map(str, json.load(stream)["class_names"]))
    except (KeyError, TypeError) as error:
        raise DataError(f"damaged ({error!r}): restore it", file) from error
