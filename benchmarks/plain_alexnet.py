"""Print the images/s of a simple training step of AlexNet, without our package.

It has two towers, ``tf.nn.lrn``, momentum, weight decay in the loss, a loop of
``session.run``, synthetic images that stay in memory, and the default settings of
TensorFlow.
"""

import argparse
import statistics
import time
from typing import Tuple

import numpy as np
import tensorflow.compat.v1 as tf

IMAGE_SIZE = 227
NUM_CLASSES = 1000


def conv(x: tf.Tensor, name: str, shape: Tuple[int, ...], stride: int = 1) -> tf.Tensor:
    """Apply a convolution and ReLU, with as many towers as the kernel implies.

    Args:
        x: float32 [batch, height, width, channels].
        name: Name of the layer.
        shape: Shape of the kernel, [height, width, channels per tower, outputs].
        stride: Stride; a layer with another stride than 1 has no padding.
    """
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", shape)
        bias = tf.get_variable("bias", shape[-1:], initializer=tf.zeros_initializer())
    padding = "SAME" if stride == 1 else "VALID"
    towers = int(x.shape[3]) // shape[2]
    parts = [
        tf.nn.conv2d(part, weights, [1, stride, stride, 1], padding)
        for part, weights in zip(
            tf.split(x, towers, axis=3), tf.split(kernel, towers, axis=3)
        )
    ]
    return tf.nn.relu(tf.nn.bias_add(tf.concat(parts, axis=3), bias))


def dense(x: tf.Tensor, name: str, units: int) -> tf.Tensor:
    """Apply a dense layer: [batch, inputs] to [batch, units]."""
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [int(x.shape[1]), units])
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
    return tf.matmul(x, kernel) + bias


def pool(x: tf.Tensor) -> tf.Tensor:
    """Apply max pooling over 3x3 windows with stride 2."""
    return tf.nn.max_pool(x, [1, 3, 3, 1], [1, 2, 2, 1], "VALID")


def normalise(x: tf.Tensor) -> tf.Tensor:
    """Apply the local response normalisation of the paper."""
    return tf.nn.lrn(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)


def build_logits(images: tf.Tensor) -> tf.Tensor:
    """Return float32 [batch, 1000] for float32 [batch, 227, 227, 3]."""
    x = pool(normalise(conv(images, "conv1", (11, 11, 3, 96), stride=4)))
    x = pool(normalise(conv(x, "conv2", (5, 5, 48, 256))))
    x = conv(x, "conv3", (3, 3, 256, 384))
    x = conv(x, "conv4", (3, 3, 192, 384))
    x = pool(conv(x, "conv5", (3, 3, 192, 256)))
    # [batch, 6, 6, 256] -> [batch, 6 * 6 * 256]
    x = tf.reshape(x, [-1, 6 * 6 * 256])
    x = tf.nn.dropout(tf.nn.relu(dense(x, "fc6", 4096)), rate=0.5)
    x = tf.nn.dropout(tf.nn.relu(dense(x, "fc7", 4096)), rate=0.5)
    return dense(x, "fc8", NUM_CLASSES)


def build_train_op(batch_size: int) -> tf.Operation:
    """Return the training operation of a graph with constant data."""
    random = np.random.RandomState(0)
    pixels = random.standard_normal([batch_size, IMAGE_SIZE, IMAGE_SIZE, 3])
    images = tf.get_variable(
        "images", initializer=pixels.astype(np.float32), trainable=False
    )
    labels = tf.constant(random.randint(0, NUM_CLASSES, batch_size), tf.int32)
    loss = tf.losses.sparse_softmax_cross_entropy(labels, build_logits(images))
    kernels = [v for v in tf.trainable_variables() if v.op.name.endswith("kernel")]
    loss += 5e-4 * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
    return tf.train.MomentumOptimizer(0.01, 0.9).minimize(loss)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4, help="measured steps")
    parser.add_argument("--warmup_steps", type=int, default=2)
    options = parser.parse_args()
    tf.disable_v2_behavior()
    train = build_train_op(options.batch_size)
    step_secs = []
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(options.warmup_steps + options.steps):
            start = time.perf_counter()
            session.run(train)
            step_secs.append(time.perf_counter() - start)
    measured = step_secs[options.warmup_steps :]
    print(options.batch_size / statistics.mean(measured))


if __name__ == "__main__":
    main()
