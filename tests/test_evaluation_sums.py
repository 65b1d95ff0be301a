"""The sums of an evaluation are exact even if a device computes in float16."""

from typing import Any, Dict

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator.model_fn import batch_sums, build_model_fn
from alexnet_estimator.runtime.npu_runtime import NpuRuntime
from tests import npu_double, tiny

NUM_CLASSES = 10
BATCH_SIZE = 128
NUM_BATCHES = 10_000  # The training pictures of ImageNet.
LARGEST_FLOAT16 = 65504.0
OF_AI_CPU = ("SparseTensorDenseAdd", "Assert", "Switch", "Merge")


def sums_of_a_batch() -> Dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    logits = random.normal(size=[BATCH_SIZE, NUM_CLASSES]).astype(np.float32)
    labels = random.randint(0, NUM_CLASSES, [BATCH_SIZE])
    weight = np.ones([BATCH_SIZE], np.float32)
    with tf.Graph().as_default(), tiny.session() as session:
        sums = batch_sums(
            tf.constant(logits), tf.constant(labels, tf.int32), tf.constant(weight)
        )
        return session.run(sums)


def add_up(value: np.ndarray) -> np.ndarray:
    """Add up the sums of a batch like a device that lowers float32 to float16.

    It rounds every total and saturates, but does not change whole numbers.
    """
    if value.dtype != np.float32:
        return value * np.ones([], value.dtype) * NUM_BATCHES
    total = np.zeros(value.shape, np.float16)
    with np.errstate(over="ignore"):
        for _ in range(NUM_BATCHES):
            total = np.float16(np.minimum(total + np.float16(value), LARGEST_FLOAT16))
    return total


def test_counts_are_exact_where_float16_loses_count() -> None:
    sums = sums_of_a_batch()
    counts = {name: sums[name] for name in sums if name != "loss_sum"}
    assert sorted(counts) == ["num_images", "num_top_5"]
    assert sums["num_images"] == BATCH_SIZE
    assert 0 < sums["num_top_5"] < BATCH_SIZE
    for name, value in counts.items():
        expected = value.astype(np.int64) * NUM_BATCHES
        assert np.array_equal(add_up(value), expected), name
        # The sums of 61a2226 were of float32, which such a device lowers.
        old = add_up(value.astype(np.float32))
        assert not np.array_equal(old, expected), name
    assert add_up(np.float32(BATCH_SIZE)) < 1.28e6 / 4


@pytest.mark.parametrize("release", [npu_double.OLD, npu_double.NEW])
def test_an_npus_evaluation_has_whole_totals_and_no_branches(
    release: str, monkeypatch: Any
) -> None:
    npu_double.load(monkeypatch, release)
    config = tiny.config(
        runtime={"device": "npu"}, precision={"mode": "allow_mix_precision"}
    )
    model_fn = build_model_fn(config, NUM_CLASSES, NpuRuntime(config, {}))
    with tf.Graph().as_default() as graph:
        features = {
            "image": tf.zeros([4, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, 3]),
            "weight": tf.ones([4]),
        }
        spec = model_fn(features, tf.zeros([4], tf.int32), tf.estimator.ModeKeys.EVAL)
        # Estimator does the same with the loss.
        tf.metrics.mean(spec.loss)
        kinds = {op.type for op in graph.get_operations()}
        totals = tf.get_collection(tf.GraphKeys.METRIC_VARIABLES, scope="metrics/")
        by_name = {total.op.name[len("metrics/") :]: total for total in totals}
        in_float = [
            op.name
            for op in graph.get_operations()
            if op.type == "AssignAdd"
            and op.name.startswith("metrics/Assign")
            and op.outputs[0].dtype.base_dtype == tf.float32
        ]
        kept = [
            op for op in graph.get_operations() if "_keep_dtype" in op.node_def.attr
        ]
    npu_double.forget()
    assert not [kind for kind in kinds if kind in OF_AI_CPU or "Sparse" in kind]
    assert {name: total.dtype.base_dtype.name for name, total in by_name.items()} == {
        "loss_sum": "float32",
        "num_images": "int32",
        "num_top_5": "int32",
    }
    # Releases of 2021-01 have no keep_dtype_scope.
    kinds_kept = {op.type for op in kept}
    assert len(in_float) == 1
    if release == npu_double.OLD:
        assert not kept
    else:
        assert in_float[0] in [op.name for op in kept]
        assert {"SoftmaxCrossEntropyWithLogits", "Sum"} <= kinds_kept
