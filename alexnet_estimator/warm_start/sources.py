"""Sources of weights: a run, a checkpoint, or a file converted from Caffe."""

import math
import os
from typing import Any, Dict, Mapping, NamedTuple, Tuple

import numpy as np

from alexnet_estimator import checkpoints, run_record
from alexnet_estimator.checkpoints import best, restore
from alexnet_estimator.config import find_breaches
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import sha256_of
from alexnet_estimator.networks import Network
from alexnet_estimator.rules import Rule, above
from alexnet_estimator.schema import SCHEMA
from alexnet_estimator.warm_start.caffe_file import read_caffe_file

# Suffix that TensorFlow gives the name of a variable's moving average.
AVERAGE = "/ExponentialMovingAverage"
# Fields of the section ``data`` that determine how the source prepared its pixels.
PIXEL_RULES = {
    "mean_rgb": Rule(
        "three numbers",
        lambda v: isinstance(v, list) and len(v) == 3 and all(map(_is_finite, v)),
    ),
    "pixel_scale": above(0),
    "channel_order": SCHEMA["data"]["channel_order"].rule,
}
# Variables of a layer by name, e.g. "kernel" and "bias".
Variables = Mapping[str, np.ndarray]


class Source(NamedTuple):
    """A trained network from which a run takes weights.

    Attributes:
        path: Path of the file, or path prefix of the checkpoint, that was read.
        layers: Variables of each layer; layers may be missing.
        data: Fields of the section ``data`` with which the pixels were prepared:
            ``mean_rgb``, ``pixel_scale`` and ``channel_order``.
        settings: Fields of the section ``model``; fields may be missing.
        class_names: Names of the outputs of the head; empty if they are unknown.
        is_averaged: Whether the weights are moving averages.
        unused: Names of the other content of the source.
    """

    path: str
    layers: Mapping[str, Variables]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    class_names: Tuple[str, ...] = ()
    is_averaged: bool = False
    unused: Tuple[str, ...] = ()


def locate(path: str) -> str:
    """Return the path of the file, or the path prefix of the checkpoint, to read.

    Args:
        path: Path of a run, path prefix of a checkpoint, or path of a ``.npy`` file.
            For a run, this is its best checkpoint if that is valid, and its newest
            valid one otherwise.

    Raises:
        ConfigError: The path is none of these.
        DataError: The run has no valid checkpoint.
    """
    if os.path.isdir(path):
        most_accurate = best.best_of(path)
        newest = checkpoints.list_checkpoints(path)[::-1]
        return restore.first_valid(
            [most_accurate, *newest] if most_accurate else newest,
            path,
            "give the folder of a run that has trained",
        )
    if os.path.isfile(path + ".index"):
        return restore.first_valid([path], path, "choose another one")
    if os.path.isfile(path) and path.endswith(".npy"):
        return path
    what = "is not there"
    if is_there(path):
        what = "is neither a run, a checkpoint nor a .npy file"
    raise ConfigError(
        f"{what}: --warm_start_from takes the folder of a run, the path prefix "
        "RUN/model.ckpt-STEP of a checkpoint, or bvlc_alexnet.npy",
        path,
    )


def read_source(path: str, network: Network) -> Source:
    """Read all weights of a trained network.

    Args:
        path: Path that ``locate`` returned.
        network: Network that will get the weights.

    Raises:
        DataError: The source is damaged, or it has the weights of another network.
    """
    if not path.endswith(".npy"):
        source = _read_checkpoint(path, network)
    elif network.caffe_settings is None:
        raise DataError(
            f"{network.title} has no weights in Caffe's layout: give a run or a "
            "checkpoint",
            path,
        )
    else:
        layers, unused = read_caffe_file(path, network.layer_names)
        data, settings = (network.caffe_settings[name] for name in ("data", "model"))
        source = Source(path, layers, data, settings, unused=tuple(unused))
    if not source.layers:
        raise DataError(
            f"has none of the layers {', '.join(network.layer_names)}", path
        )
    return source


def digest_of(path: str) -> str:
    """Return the SHA-256 (hex) of a file, or of all files of a checkpoint."""
    files = [path] if path.endswith(".npy") else checkpoints.files_of(path)
    return sha256_of(*files)


def is_there(path: str) -> bool:
    """Return whether there is a file, a folder or a checkpoint at a path."""
    return os.path.exists(path) or bool(checkpoints.files_of(path))


def _read_checkpoint(prefix: str, network: Network) -> Source:
    """Read the layers of a network from a checkpoint."""
    file = run_record.path_of(os.path.dirname(os.path.abspath(prefix)))
    if not os.path.isfile(file):
        raise DataError(
            f"has no {run_record.FILE_NAME} beside it, which describes the input of "
            "the network: copy that file as well",
            prefix,
        )
    reader = restore.open_reader(prefix)
    stored = set(reader.get_variable_to_shape_map())
    # The name of a slot of the optimizer is VARIABLE/Momentum.
    variables = {name for name in stored if os.path.dirname(name) not in stored}
    layers: Dict[str, Dict[str, np.ndarray]] = {}
    is_averaged = False
    for name in sorted(variables):
        scope, _, rest = name.partition("/")
        layer, _, part = rest.partition("/")
        if scope == network.name and layer in network.layer_names and part:
            has_average = name + AVERAGE in stored
            is_averaged = is_averaged or has_average
            value = reader.get_tensor(name + AVERAGE if has_average else name)
            layers.setdefault(layer, {})[part] = value
    # read_values does not load the file of the source's network, which may have been
    # moved.
    record = run_record.read_values(file)
    data, settings = (record["config"].get(name, {}) for name in ("data", "model"))
    problems = find_breaches(data, PIXEL_RULES, "config.data.")
    if problems:
        raise DataError(problems, file, "restore it")
    return Source(
        prefix,
        layers,
        data,
        settings,
        class_names=tuple(record.get("class_names", ())),
        is_averaged=is_averaged,
        unused=("global step and optimizer state",),
    )


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
