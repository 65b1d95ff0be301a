"""Conversion of a checkpoint to graphs for serving: SavedModel, frozen graph, ONNX.

All of them compute in float32 and take images as float32 [batch, size, size, 3], RGB
from 0 to 255.  The subtraction of the mean and the division by the scale are a part of
the graph.
"""

import logging
import os
from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np

from alexnet_estimator import checkpoints, files, inputs, run_record
from alexnet_estimator.checkpoints.names import prefix_for_tensorflow
from alexnet_estimator.config import Config, default_config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.jobs.predict.classifier import (
    ASSETS,
    IMAGES,
    PROBABILITIES,
    loaded,
)
from alexnet_estimator.jobs.session import versions
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.networks import EXPORTED, find_network
from alexnet_estimator.run_record import RunRecord
from alexnet_estimator.runtime.base import session_config
from alexnet_estimator.runtime.local import LocalRuntime

NAMES_FILE = "class_names.txt"
# TensorFlow Serving requires this suffix of names that stand for binary data.
ENCODED = "image_bytes"
BYTES_SIGNATURE = tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
# Every onnxruntime for Python 3.7 supports this opset, and so does CANN.
_ONNX_OPSET = 13


class Model(NamedTuple):
    """The model that is exported.

    Attributes:
        config: Configuration of the run, with a precision of float32.
        class_names: Names of the classes, in the order of the probabilities.
        conversion: Options with which the pictures of the run were converted.
        checkpoint: Path prefix of the checkpoint.
        batch_size: Fixed batch size of the frozen graph and of the ONNX model; None if
            every call may have another one.
    """

    config: Config
    class_names: Tuple[str, ...]
    conversion: Dict[str, Any]
    checkpoint: str
    batch_size: Optional[int] = None


def write_saved_model(model: Model, folder: str) -> None:
    """Write a SavedModel with two signatures into a new folder.

    The signature ``serving_default`` takes ``image_bytes``, string [batch], which are
    contents of JPEG, PNG, GIF or BMP files.  The signature ``images`` takes ``images``,
    float32 [batch, size, size, 3].  Both return ``probabilities``, float32
    [batch, num_classes], ``class_index``, int32 [batch], and ``class_name``, string
    [batch].
    """
    size = model.config.data.image_size
    with tf.Graph().as_default(), _session(model) as session:
        encoded = tf.placeholder(tf.string, [None], ENCODED)
        decoded = tf.map_fn(
            lambda picture: inputs.decode_for_eval(picture, size), encoded, tf.uint8
        )
        # Both signatures share one network: one of them feeds this placeholder, and the
        # other computes its default value.
        images = tf.placeholder_with_default(
            tf.cast(decoded, tf.float32), [None, size, size, 3], IMAGES
        )
        probabilities, saver = _restore(model, images, session)
        index = tf.argmax(probabilities, axis=1, output_type=tf.int32)
        names = tf.constant([os.fsencode(name) for name in model.class_names])
        outputs = {
            PROBABILITIES: probabilities,
            "class_index": index,
            "class_name": tf.gather(names, index),
        }
        builder = tf.saved_model.builder.SavedModelBuilder(folder)
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.tag_constants.SERVING],
            {
                BYTES_SIGNATURE: _signature({ENCODED: encoded}, outputs),
                IMAGES: _signature({IMAGES: images}, outputs),
            },
            saver=saver,
            clear_devices=True,
            strip_default_attrs=True,
        )
        builder.save()
    _write_assets(model, os.path.join(folder, ASSETS))


def freeze(model: Model) -> tf.GraphDef:
    """Return the graph from ``images`` to ``probabilities`` with constant weights."""
    size = model.config.data.image_size
    with tf.Graph().as_default() as graph, _session(model) as session:
        images = tf.placeholder(tf.float32, [model.batch_size, size, size, 3], IMAGES)
        _restore(model, images, session)
        # TF 1.15 cannot load a graph that has attributes of newer versions.
        meta_graph = tf.train.export_meta_graph(
            graph=graph, collection_list=[], strip_default_attrs=True
        )
        return tf.graph_util.convert_variables_to_constants(
            session, meta_graph.graph_def, [PROBABILITIES]
        )


def to_onnx(frozen: tf.GraphDef, name: str) -> bytes:
    """Convert a frozen graph to an ONNX model.

    Args:
        frozen: Graph that ``freeze`` returned.
        name: Name of the graph in the ONNX model.

    Returns:
        The bytes of the ONNX model.  The names of its tensors end in ``:0``.
    """
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_graph_def(
        frozen,
        name=name,
        input_names=[f"{IMAGES}:0"],
        output_names=[f"{PROBABILITIES}:0"],
        opset=_ONNX_OPSET,
    )
    return model.SerializeToString()


def require_onnx() -> None:
    """Check that ONNX models can be created and run.

    Raises:
        ConfigError: The packages for ONNX are not installed.
    """
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the format onnx needs tf2onnx and onnxruntime ({error}): in a clone, "
            "`bash launch/setup_env.sh --with-onnx` adds them; or omit this format"
        ) from error


def run_saved_model(folder: str, signature: str, values: Any) -> Dict[str, np.ndarray]:
    """Run a signature of a SavedModel on a batch of its only input.

    Returns:
        The outputs of the signature by their names.
    """
    with loaded(folder) as (session, signatures):
        (tensor,) = signatures[signature].inputs.values()
        fetches = {name: t.name for name, t in signatures[signature].outputs.items()}
        return session.run(fetches, {tensor.name: values})


def run_frozen(path: str, images: np.ndarray) -> np.ndarray:
    """Run the frozen graph in a file on a batch of images.

    Returns:
        The probabilities, float32 [batch, num_classes].
    """
    frozen = tf.GraphDef()
    with open(path, "rb") as file:
        frozen.ParseFromString(file.read())
    with tf.Graph().as_default(), tf.Session(config=session_config(0)) as session:
        tf.import_graph_def(frozen, name="")
        return session.run(f"{PROBABILITIES}:0", {f"{IMAGES}:0": images})


def run_onnx(path: str, images: np.ndarray) -> np.ndarray:
    """Run the ONNX model in a file on a batch of images.

    Returns:
        The probabilities, float32 [batch, num_classes].
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {f"{IMAGES}:0": images.astype(np.float32)})
    return probabilities


def _session(model: Model) -> tf.Session:
    return tf.Session(config=session_config(model.config.runtime.num_threads))


def _restore(
    model: Model, images: tf.Tensor, session: tf.Session
) -> Tuple[tf.Tensor, tf.train.Saver]:
    """Build the network on top of ``images`` and restore its weights.

    Returns:
        The probabilities, float32 [batch, num_classes], and the saver that restored the
        weights.
    """
    model_fn = build_model_fn(model.config, len(model.class_names), LocalRuntime("cpu"))
    spec = model_fn({"image": images}, None, tf.estimator.ModeKeys.PREDICT)
    probabilities = tf.nn.softmax(spec.predictions["logits"], name=PROBABILITIES)
    saver = spec.scaffold.saver or tf.train.Saver()
    saver.restore(session, prefix_for_tensorflow(model.checkpoint))
    return probabilities, saver


def _signature(tensors: Dict[str, tf.Tensor], outputs: Dict[str, tf.Tensor]) -> Any:
    return tf.saved_model.predict_signature_def(tensors, outputs)


def _write_assets(model: Model, folder: str) -> None:
    """Write the files that a SavedModel needs beside its graph for predictions."""
    config = Config(model.config.to_dict())
    config.data.path = ""  # The path may be private, and the model is passed on.
    network = find_network(config.model.network)
    if network.sha256:  # The path of a user's network file may be private as well.
        config.model = default_config(EXPORTED).model
    record = RunRecord(
        config,
        tuple(model.class_names),
        conversion=model.conversion,
        network=network.describe(),
        versions=versions(),
        global_step=checkpoints.step_of(model.checkpoint),
    )
    os.mkdir(folder)
    run_record.write(run_record.path_of(folder), record)
    write_names(model, folder)


def write_names(model: Model, folder: str) -> None:
    """Write ``class_names.txt`` with a line for each class, in the order of labels."""
    names = [os.fsencode(name) + b"\n" for name in model.class_names]
    files.write_bytes(os.path.join(folder, NAMES_FILE), b"".join(names))
