"""Synthetic images with the shapes and dtypes of real ones."""

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.inputs.shards import Reader, mix
from alexnet_estimator.records.dataset import Dataset


def synthetic_batches(
    dataset: Dataset, data: Config, reader: Reader
) -> tf.data.Dataset:
    """Return an endless dataset that repeats one batch of random images."""
    generator = np.random.RandomState(mix(reader.seed, reader.rank))
    # images: uint8 [batch, size, size, 3]; labels: int32 [batch]
    shape = [reader.batch_size, data.image_size, data.image_size, 3]
    features = {"image": generator.randint(0, 256, shape).astype(np.uint8)}
    labels = generator.randint(0, dataset.num_classes, shape[:1]).astype(np.int32)
    return tf.data.Dataset.from_tensors((features, labels)).repeat()


def with_weights(
    batches: tf.data.Dataset, num_steps: int, num_padding: int, batch_size: int
) -> tf.data.Dataset:
    """Return the first batches with weights; the last ``num_padding`` weights are 0."""
    weights = np.ones([num_steps * batch_size], np.float32)
    weights[len(weights) - num_padding :] = 0
    # [num_steps * batch] -> num_steps elements of [batch]
    weights = tf.data.Dataset.from_tensor_slices(weights.reshape([-1, batch_size]))
    return tf.data.Dataset.zip((batches, weights)).map(
        lambda batch, weight: (dict(batch[0], weight=weight), batch[1])
    )
