"""The memory of a process that trains on a CPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator.runtime.base import session_config

SCRIPT = """
import numpy as np
from alexnet_estimator.runtime import memory
memory.keep_freed_memory()
large = np.ones(64 << 20, np.uint8)
for line in open("/proc/self/maps"):
    start, end = (int(edge, 16) for edge in line.split()[0].split("-"))
    if start <= large.ctypes.data < end:
        print("heap" if "[heap]" in line else "elsewhere")
"""


@pytest.mark.parametrize(
    "variables, place",
    [
        ({}, "heap"),
        ({"MALLOC_ARENA_MAX": "4"}, "elsewhere"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, "elsewhere"),
    ],
)
def test_large_blocks_stay_with_the_process_unless_the_user_says(
    variables: dict, place: str
) -> None:
    """The heap is not returned to the kernel, unless the user has set malloc."""
    unset = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**unset, "PYTHONPATH": os.getcwd(), **variables},
        stdout=subprocess.PIPE,
        check=True,
        universal_newlines=True,
    )
    assert done.stdout.split() == [place]


def test_no_session_keeps_the_zeros_that_large_slots_start_from() -> None:
    """The slots have 16 MiB; the session turns up to 10 MiB into constants anyway."""
    side = 2048
    with tf.Graph().as_default():
        weight = tf.get_variable("weight", [side, side])
        tf.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(weight**2))
        ran = tf.RunMetadata()
        with tf.Session(config=session_config(1)) as session:
            session.run(
                tf.global_variables_initializer(),
                options=tf.RunOptions(output_partition_graphs=True),
                run_metadata=ran,
            )
    nodes = [node for graph in ran.partition_graphs for node in graph.node]
    sizes = [
        np.prod([side.size for side in node.attr["value"].tensor.tensor_shape.dim])
        for node in nodes
        if node.op == "Const"
    ]
    assert sizes and max(sizes) < side
