"""A checkpoint as graphs for serving: SavedModel, frozen graph and ONNX.

All of them compute in float32 and take images as float32 [batch, size, size, 3], RGB
from 0 to 255: the subtraction of the mean is in the graph.
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
# Some servers take base64 only for names that end in _bytes.
ENCODED = "image_bytes"
BYTES_SIGNATURE = tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
# Known to every onnxruntime that runs with Python 3.7, and to CANN.
_ONNX_OPSET = 13


class Model(NamedTuple):
    """The parts that a graph for serving is made of.

    Attributes:
        config: Configuration of the run, with a precision of float32.
        class_names: Names of the classes, in the order of the probabilities.
        conversion: Options by which the pictures of the run were converted.
        checkpoint: Path prefix of the checkpoint.
        batch_size: Batch of the frozen graph and of ONNX; None: any, chosen with each
            call.
    """

    config: Config
    class_names: Tuple[str, ...]
    conversion: Dict[str, Any]
    checkpoint: str
    batch_size: Optional[int] = None


def write_saved_model(model: Model, folder: str) -> None:
    """Write a SavedModel with two signatures into a new folder.

    ``serving_default`` takes ``image_bytes``, string [batch]: JPEG, PNG, GIF or BMP
    files.  ``images`` takes decoded ones.  Both return ``probabilities``, float32
    [batch, num_classes], ``class_index``, int32 [batch], and ``class_name``, string
    [batch].
    """
    size = model.config.data.image_size
    with tf.Graph().as_default(), _session(model) as session:
        encoded = tf.placeholder(tf.string, [None], ENCODED)
        decoded = tf.map_fn(
            lambda picture: inputs.decode_for_eval(picture, size), encoded, tf.uint8
        )
        # Fed by one signature, computed in the other: one network for both.
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
        # Attributes that are newer than TF 1.15 would keep it from loading the file.
        meta_graph = tf.train.export_meta_graph(
            graph=graph, collection_list=[], strip_default_attrs=True
        )
        return tf.graph_util.convert_variables_to_constants(
            session, meta_graph.graph_def, [PROBABILITIES]
        )


def to_onnx(frozen: tf.GraphDef, name: str) -> bytes:
    """Return the frozen graph as an ONNX model of this name; tensors end in ``:0``."""
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
    """Check that ONNX models can be made and run.

    Raises:
        ConfigError: The packages for ONNX are not installed.
    """
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the format onnx needs tf2onnx and onnxruntime ({error}): in a clone, "
            "`bash launch/setup_env.sh --with-onnx` adds them; or leave it out"
        ) from error


def run_saved_model(folder: str, signature: str, values: Any) -> Dict[str, np.ndarray]:
    """Return the outputs of one signature for a batch of its only input."""
    with loaded(folder) as (session, signatures):
        (tensor,) = signatures[signature].inputs.values()
        fetches = {name: t.name for name, t in signatures[signature].outputs.items()}
        return session.run(fetches, {tensor.name: values})


def run_frozen(path: str, images: np.ndarray) -> np.ndarray:
    """Return the probabilities that the frozen graph in a file gives a batch."""
    frozen = tf.GraphDef()
    with open(path, "rb") as file:
        frozen.ParseFromString(file.read())
    with tf.Graph().as_default(), tf.Session(config=session_config(0)) as session:
        tf.import_graph_def(frozen, name="")
        return session.run(f"{PROBABILITIES}:0", {f"{IMAGES}:0": images})


def run_onnx(path: str, images: np.ndarray) -> np.ndarray:
    """Return the probabilities that the ONNX model in a file gives a batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {f"{IMAGES}:0": images.astype(np.float32)})
    return probabilities


def _session(model: Model) -> tf.Session:
    return tf.Session(config=session_config(model.config.runtime.num_threads))


def _restore(
    model: Model, images: tf.Tensor, session: tf.Session
) -> Tuple[tf.Tensor, tf.train.Saver]:
    """Build the network on top of images and restore it; return its probabilities."""
    model_fn = build_model_fn(model.config, len(model.class_names), LocalRuntime("cpu"))
    spec = model_fn({"image": images}, None, tf.estimator.ModeKeys.PREDICT)
    probabilities = tf.nn.softmax(spec.predictions["logits"], name=PROBABILITIES)
    saver = spec.scaffold.saver or tf.train.Saver()
    saver.restore(session, prefix_for_tensorflow(model.checkpoint))
    return probabilities, saver


def _signature(tensors: Dict[str, tf.Tensor], outputs: Dict[str, tf.Tensor]) -> Any:
    return tf.saved_model.predict_signature_def(tensors, outputs)


def _write_assets(model: Model, folder: str) -> None:
    """Write what a reader of the SavedModel needs to know besides its graph."""
    config = Config(model.config.to_dict())
    config.data.path = ""  # A path of this machine is nobody else's business.
    network = find_network(config.model.network)
    if network.sha256:  # The same holds for the file of a network.
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
    """Write ``class_names.txt``: a line for each class, in the order of the outputs."""
    names = [os.fsencode(name) + b"\n" for name in model.class_names]
    files.write_bytes(os.path.join(folder, NAMES_FILE), b"".join(names))
