"""Loading of a trained model, from a run or from an export, to classify pictures."""

import contextlib
import os
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from alexnet_estimator import run_record
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.checkpoints.names import for_tensorflow, prefix_for_tensorflow
from alexnet_estimator.config import Config, resolve
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.evaluate import find_checkpoint
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.run_record import FILE_NAME
from alexnet_estimator.runtime import make_runtime, settle_device, settle_precision
from alexnet_estimator.runtime.base import Runtime, session_config

# TensorFlow Serving needs a folder whose name is a version number.  Version 1.0 of this
# package wrote the SavedModel into the folder above.
SAVED_MODEL = os.path.join("saved_model", "1")
# Folder of files that belong to a SavedModel but are not read by its graph.
ASSETS = "assets.extra"
IMAGES = "images"
PROBABILITIES = "probabilities"

InputFn = Callable[[], tf.data.Dataset]
PredictBatches = Callable[[InputFn], Iterator[np.ndarray]]


class Classifier(NamedTuple):
    """A trained model that computes the probabilities of the classes.

    Attributes:
        config: Configuration of the run that trained it.
        class_names: Names of the classes, in the order of the probabilities.
        conversion: Options of the conversion of its pictures, see ``Dataset``.
        predict_batches: Function that takes an input function, such as that of
            ``inputs.picture_batches``, and yields the probabilities of each batch,
            float32 [batch, num_classes].
    """

    config: Config
    class_names: Tuple[str, ...]
    conversion: Dict[str, Any]
    predict_batches: PredictBatches


def open_classifier(
    model_dir: str, config: Optional[Config] = None, checkpoint: Optional[str] = None
) -> Classifier:
    """Open the model of a run or an exported model.

    If the run has averaged weights, the model uses them.

    Args:
        model_dir: Folder of a run, or the output of ``export``.
        config: Configuration, such as the recorded one with some fields changed; None
            for the recorded one.
        checkpoint: Path prefix of a checkpoint of the run; None for the newest valid
            one.

    Raises:
        ConfigError: The folder has neither a run nor an exported model.
        DataError: The model is damaged, or there is no valid checkpoint.
    """
    file = find_record(model_dir)
    record = run_record.read(file)
    config = config or record.config
    class_names, conversion = record.class_names, dict(record.conversion)
    if os.path.basename(os.path.dirname(file)) == ASSETS:
        if checkpoint:
            raise ConfigError(f"{model_dir} is an exported model: it has no checkpoint")
        predict_batches = _exported(os.path.dirname(os.path.dirname(file)), config)
    else:
        checkpoint = find_checkpoint(model_dir, config, checkpoint)
        runtime = make_runtime(config)
        mode = settle_precision(config.precision.mode, runtime.device)
        config = resolve(config, mode)
        predict_batches = trained(runtime, config, len(class_names), checkpoint)
    return Classifier(config, class_names, conversion, predict_batches)


def find_record(model_dir: str) -> str:
    """Return the path of the ``config.json`` of a run or of an exported model.

    Raises:
        ConfigError: The folder has neither a run nor an exported model.
        DataError: The exported model has no ``config.json``.
    """
    for part in ("", "1", SAVED_MODEL, os.path.dirname(SAVED_MODEL)):
        folder = os.path.join(model_dir, part)
        if os.path.isfile(os.path.join(folder, "saved_model.pb")):
            file = os.path.join(folder, ASSETS, FILE_NAME)
            if not os.path.isfile(file):
                raise DataError(
                    f"has no {ASSETS}/{FILE_NAME} with the names of the classes: "
                    "copy the whole folder, or export it again",
                    folder,
                )
            return file
    file = os.path.join(model_dir, FILE_NAME)
    if not os.path.isfile(file):
        raise ConfigError(
            f"{model_dir} has neither a run ({FILE_NAME}) nor an exported model: "
            "give the --model_dir of train or the --output of export"
        )
    return file


def trained(
    runtime: Runtime, config: Config, num_classes: int, checkpoint: str
) -> PredictBatches:
    """Return a function that predicts with a checkpoint through an Estimator."""
    model_fn = build_model_fn(config, num_classes, runtime, checkpoint=checkpoint)
    model_dir = os.path.dirname(os.path.abspath(checkpoint))
    estimator = runtime.make_estimator(model_fn, for_tensorflow(model_dir), config)

    def predict_batches(input_fn: InputFn) -> Iterator[np.ndarray]:
        with restore.noticing_deletion(checkpoint):
            for predictions in estimator.predict(
                input_fn,
                predict_keys=[PROBABILITIES],
                checkpoint_path=prefix_for_tensorflow(checkpoint),
                yield_single_examples=False,
            ):
                yield predictions[PROBABILITIES]

    return predict_batches


def _exported(folder: str, config: Config) -> PredictBatches:
    """Return a function that predicts with the signature ``images`` of a SavedModel."""
    device = settle_device(config.runtime.device)

    def predict_batches(input_fn: InputFn) -> Iterator[np.ndarray]:
        with loaded(folder, config.runtime.num_threads, device) as (
            session,
            signatures,
        ):
            images = signatures[IMAGES].inputs["images"].name
            probabilities = signatures[IMAGES].outputs[PROBABILITIES].name
            iterator = tf.data.make_initializable_iterator(input_fn())
            features = iterator.get_next()
            session.run(iterator.initializer)
            while True:
                try:
                    batch = session.run(features)["image"]
                except tf.errors.OutOfRangeError:
                    return
                # [batch, size, size, 3] stays; with ten-crop,
                # [batch, 10, size, size, 3] -> [batch * 10, size, size, 3]
                views = batch.reshape([-1, *batch.shape[-3:]])
                values = session.run(probabilities, {images: views})
                # [batch * views, num_classes] -> [batch, num_classes]
                yield values.reshape([len(batch), -1, values.shape[1]]).mean(axis=1)

    return predict_batches


@contextlib.contextmanager
def loaded(
    folder: str, num_threads: int = 0, device: str = "cpu"
) -> Iterator[Tuple[tf.Session, Any]]:
    """Load a SavedModel, and yield its session and its signatures by name.

    Raises:
        DataError: The model is damaged or is not the output of ``export``.
    """
    with tf.Graph().as_default(), tf.Session(
        config=session_config(num_threads, device)
    ) as session:
        try:
            tags = [tf.saved_model.tag_constants.SERVING]
            model = tf.saved_model.loader.load(session, tags, folder)
        except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                f"cannot be loaded: {error}; export it again", folder
            ) from error
        if IMAGES not in model.signature_def:
            raise DataError(f"has no signature {IMAGES}; export it again", folder)
        yield session, model.signature_def
