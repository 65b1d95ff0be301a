"""Memory of a rank in training: the measured peak, and the computed need.

    .venv/1.15-intel/bin/python -m benchmarks.memory --output=F

The peak is that of the resident set of the whole process, which includes Python and the
libraries of TensorFlow (``peak_rss_mib`` of the subcommand ``benchmark``).  That of the
plain graph is measured as well.  ``needed_bytes`` computes the need.
"""

import functools
from typing import Dict, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import Config, default_config
from alexnet_estimator.networks.alexnet_graph import CONV_LAYERS
from alexnet_estimator.networks.graphs import variable_shapes
from benchmarks import harness
from benchmarks.harness import Engine

KIND = harness.Kind("memory", "MiB", higher_is_better=False)
FLOAT_BYTES = 4
NUM_CLASSES = 1000
Shapes = Dict[str, Tuple[int, ...]]


def needed_bytes(config: Config, num_classes: int) -> Dict[str, int]:
    """Return the bytes that a training step with momentum needs at least, by kind.

    All numbers are float32.  The kinds are

    * ``weights``, ``slots`` and ``gradients``, all of the same size;
    * ``activations`` that the backward pass needs, which all exist at the end of the
      forward pass: the images; of each convolution the outputs of ReLU, of LRN and of
      pooling; of fc6 and fc7 the outputs of ReLU and of dropout, and the mask; the
      logits.

    Python, TensorFlow, workspaces of kernels, gradients of activations, prefetched
    batches and the inputs of ReLU, which may work in place, are not included.
    """
    shapes, _ = variable_shapes(num_classes, config.data.image_size, config.model)
    weights = sum(int(np.prod(shape)) for shape in shapes.values())
    images = config.train.batch_size_per_rank
    activations = images * activations_per_image(config, shapes)
    parts = {
        "weights": weights,
        "slots": weights,
        "gradients": weights,
        "activations": activations,
    }
    return {name: FLOAT_BYTES * count for name, count in parts.items()}


def activations_per_image(config: Config, shapes: Shapes) -> int:
    """Return the number of activations of one image that the backward pass needs."""
    side = config.data.image_size
    total = side * side * 3
    for conv in CONV_LAYERS:
        if conv.padding == "VALID":
            side = (side - conv.kernel_size) // conv.stride + 1
        channels = shapes[f"alexnet/{conv.name}/bias"][0]
        has_lrn = conv.has_lrn and config.model.lrn_alpha > 0
        total += side * side * channels * (2 if has_lrn else 1)
        if conv.has_pool:
            side //= 2  # 3x3 windows with stride 2; see alexnet_graph.
            total += side * side * channels
    return (
        total
        + 3 * (shapes["alexnet/fc6/bias"][0] + shapes["alexnet/fc7/bias"][0])
        + (shapes["alexnet/fc8/bias"][0])
    )


def measure_peak(engine: Engine, flags: Sequence[str]) -> float:
    """Return the peak memory of our training step in MiB."""
    classes = f"--config.data.synthetic_classes={NUM_CLASSES}"
    (record,) = harness.measure_job(engine, "train", *flags, classes)
    return float(record["peak_rss_mib"])


def measure_plain_peak(command: Sequence[str]) -> float:
    """Return the peak memory of ``plain_alexnet.py`` in MiB."""
    return harness.measure_process(command)[1]


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__, rounds=1)
    harness.add_step_flags(parser, steps=4)
    options = parser.parse_args()
    config = default_config()
    config.train.batch_size_per_rank = options.batch_size
    parts = {
        name: round(size / 2**20, 1)
        for name, size in needed_bytes(config, NUM_CLASSES).items()
    }
    needed = sum(parts.values())
    harness.append(options.output, KIND, "computed", [needed], parts=parts)
    for engine in harness.engines_of(options):
        flags = harness.step_flags(options)
        plain = harness.plain_command(engine, options)
        cases = {
            f"peak {engine.name}": functools.partial(measure_peak, engine, flags),
            f"plain {engine.name}": functools.partial(measure_plain_peak, plain),
        }
        versions = dict.fromkeys(cases, harness.versions_of(engine))
        harness.run_and_append(options, KIND, cases, versions)


if __name__ == "__main__":
    main()
