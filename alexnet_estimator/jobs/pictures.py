"""Pictures of a model for people."""

import io
import math
from typing import Optional

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image


def draw_conv1_kernels(checkpoint: Optional[str], zoom: int = 4) -> bytes:
    """Draw the first layer's kernels in a grid, as figure 3 of the paper does.

    Args:
        checkpoint: path prefix.
        zoom: pixels for each weight.

    Returns:
        A PNG's bytes; every kernel is stretched to the full range of colours.
    """
    kernels = tf.train.load_variable(checkpoint, "alexnet/conv1/kernel")
    low = kernels.min(axis=(0, 1, 2), keepdims=True)
    span = np.maximum(kernels.max(axis=(0, 1, 2), keepdims=True) - low, 1e-12)
    tiles = np.transpose((kernels - low) / span * 255, [3, 0, 1, 2]).astype(np.uint8)
    columns = math.ceil(math.sqrt(len(tiles) * 2))
    rows = math.ceil(len(tiles) / columns)
    side = tiles.shape[1] * zoom
    gap = zoom
    shape = (rows * (side + gap) + gap, columns * (side + gap) + gap, 3)
    canvas = np.full(shape, 255, np.uint8)
    for index, tile in enumerate(tiles):
        top = gap + index // columns * (side + gap)
        left = gap + index % columns * (side + gap)
        enlarged = tile.repeat(zoom, axis=0).repeat(zoom, axis=1)
        canvas[top : top + side, left : left + side] = enlarged
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="PNG")
    return buffer.getvalue()
