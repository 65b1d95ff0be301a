"""Comparison of an exported model with its checkpoint on some pictures."""

import io
import itertools
from typing import Callable, Iterator, List, NamedTuple

import numpy as np
from PIL import Image

from alexnet_estimator import inputs
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.jobs.data import open_data
from alexnet_estimator.jobs.export.graphs import Model
from alexnet_estimator.jobs.predict.classifier import trained
from alexnet_estimator.records import examples, tfrecord
from alexnet_estimator.records.dataset import TRAIN, VALIDATION
from alexnet_estimator.runtime.base import session_config
from alexnet_estimator.runtime.local import LocalRuntime

MAX_PICTURES = 50
MAX_DIFFERENCE = 1e-4


class Trial(NamedTuple):
    """Pictures for the comparison, and the expected results.

    Attributes:
        pictures: Contents of the picture files.
        images: Decoded pictures, uint8 [num_pictures, size, size, 3].
        expected: Probabilities of the checkpoint, float32 [num_pictures, num_classes].
    """

    pictures: List[bytes]
    images: np.ndarray
    expected: np.ndarray


def prepare_trial(model: Model, model_dir: str) -> Trial:
    """Classify pictures of the run's evaluation with the checkpoint.

    Raises:
        DataError: The data of the run cannot be used.
    """
    config = model.config
    if config.data.synthetic:
        pictures = [_draw_noise(seed, config.data.image_size) for seed in range(2)]
    else:
        pictures = list(
            itertools.islice(_read_pictures(config, model_dir), MAX_PICTURES)
        )

    def input_fn() -> tf.data.Dataset:
        return inputs.picture_batches(
            lambda: iter(pictures), config.data, len(pictures)
        )

    runtime, num_classes = LocalRuntime("cpu"), len(model.class_names)
    predict_batches = trained(runtime, config, num_classes, model.checkpoint)
    (expected,) = predict_batches(input_fn)
    with tf.Graph().as_default(), tf.Session(config=session_config(0)) as session:
        iterator = tf.data.make_initializable_iterator(input_fn())
        features = iterator.get_next()
        session.run(iterator.initializer)
        return Trial(pictures, session.run(features)["image"], expected)


def run_in_batches(
    run: Callable[[np.ndarray], np.ndarray], model: Model, trial: Trial
) -> np.ndarray:
    """Call a function on the images in batches of the model's batch size.

    Args:
        run: Function from images, uint8 [batch, size, size, 3], to probabilities,
            float32 [batch, num_classes].
        model: Exported model.
        trial: Pictures for the comparison.

    Returns:
        The probabilities of all images, float32 [num_pictures, num_classes].
    """
    num_images = len(trial.images)
    batch_size = model.batch_size or num_images
    padding = -num_images % batch_size
    images = np.pad(trial.images, [(0, padding), (0, 0), (0, 0), (0, 0)])
    # [num_images + padding, size, size, 3] -> [num_batches, batch_size, size, size, 3]
    batches = images.reshape([-1, batch_size, *images.shape[1:]])
    return np.concatenate([run(batch) for batch in batches])[:num_images]


def compare(name: str, probabilities: np.ndarray, trial: Trial) -> float:
    """Return the largest difference between probabilities and the checkpoint's.

    Args:
        name: Name of the exported file, for the error message.
        probabilities: Probabilities of the exported model, float32
            [num_pictures, num_classes].
        trial: Pictures for the comparison.

    Raises:
        DataError: The difference is larger than ``MAX_DIFFERENCE``, or NaN.
    """
    difference = float(np.abs(probabilities - trial.expected).max())
    if not difference <= MAX_DIFFERENCE:
        raise DataError(
            f"{name}: a probability differs from the checkpoint's by {difference:.2g}, "
            f"more than {MAX_DIFFERENCE:g}, on {len(trial.images)} pictures; nothing "
            "was exported"
        )
    return difference


def _read_pictures(config: Config, model_dir: str) -> Iterator[bytes]:
    """Yield the pictures of the validation split or, if it is empty, of training."""
    dataset = open_data(config, model_dir, is_training=False)
    for path in dataset.shard_paths(VALIDATION) or dataset.shard_paths(TRAIN):
        for record in tfrecord.read_records(path):
            if not record.problem:
                yield examples.parse(record.data)[0]


def _draw_noise(seed: int, size: int) -> bytes:
    pixels = np.random.RandomState(seed).randint(0, 256, [size, size, 3])
    encoded = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()
