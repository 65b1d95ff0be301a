"""The figures of a benchmark, as a table and as lines of JSON.

* ``images_per_sec``, ``step_ms_p50`` and others: see ``speed_figures``.  The padding of
  the last batch of an evaluation does not count.
* ``images_per_cpu_sec``: the images of the window over the CPU seconds of all ranks.
  It is the rate of one core, whatever else the machine does.
* ``input_wait_share``: the time of the operator ``IteratorGetNext``, which waits for
  a batch, over the wall time of the traced steps of rank 0.  It is null on an NPU,
  which runs whole loops that cannot be traced, and for the input alone.
* ``peak_rss_mib``: the peak memory of the process of rank 0 so far, including earlier
  measurements of the same command.
"""

import json
from typing import Any, Dict, List, Sequence

import numpy as np

from alexnet_estimator import inputs, machine
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.hooks.timing import Tick
from alexnet_estimator.jobs.session import versions
from alexnet_estimator.runtime.base import session_config

# The window is divided into this many parts, which show how steady the speed was.
NUM_PARTS = 4
BenchmarkRecord = Dict[str, Any]


def speed_figures(
    ticks: Sequence[Tick], num_images: Sequence[int], steps_per_call: int = 1
) -> BenchmarkRecord:
    """Return images/s and percentiles of the durations of steps.

    ``images_per_sec`` is the number of images of all ranks over the wall time of the
    whole window; it is not a mean of rates.  ``images_per_sec_lowest`` and
    ``images_per_sec_highest`` are the rates of the slowest and of the fastest of
    ``NUM_PARTS`` parts of the window.  ``step_ms_p50``, ``step_ms_p90`` and
    ``step_ms_p99`` are percentiles over the steps of rank 0, interpolated linearly.
    The steps of one call count with equal durations.

    Args:
        ticks: Beginning of the window, then the end of each call of ``session.run``.
        num_images: Number of images of all ranks in each call.
        steps_per_call: Number of training steps in a call.
    """
    ends = np.array([tick.wall_secs for tick in ticks])
    num_calls = len(ends) - 1
    edges = np.linspace(0, num_calls, min(NUM_PARTS, num_calls) + 1).astype(int)
    rates = [
        sum(num_images[first:last]) / (ends[last] - ends[first])
        for first, last in zip(edges, edges[1:])
    ]
    total, secs = sum(num_images), ends[-1] - ends[0]
    step_ms = np.diff(ends) * 1000 / steps_per_call
    percentiles = {p: np.percentile(step_ms, p) for p in (50, 90, 99)}
    return {
        "num_steps": num_calls * steps_per_call,
        "num_images": total,
        "seconds": round(float(secs), 6),
        "images_per_sec": round(float(total / secs), 2),
        "images_per_sec_lowest": round(float(min(rates)), 2),
        "images_per_sec_highest": round(float(max(rates)), 2),
        **{f"step_ms_p{p}": round(float(ms), 3) for p, ms in percentiles.items()},
    }


def images_in_eval_step(step: int, num_images: int, reader: inputs.Reader) -> int:
    """Return the number of images of all ranks in a step of a repeated evaluation.

    Args:
        step: Number of the step from 0, counted over all repetitions.
        num_images: Number of images of the split, without padding.
        reader: Reader of any rank.
    """
    batch = reader.batch_size
    first = step % inputs.num_eval_steps(num_images, reader) * batch
    edges = inputs.part_edges(num_images, reader.num_ranks)
    sizes = [end - start for start, end in zip(edges, edges[1:])]
    return sum(min(batch, max(0, size - first)) for size in sizes)


def describe_machine(num_threads: int) -> BenchmarkRecord:
    """Return the machine, the threads and the versions of a measurement.

    Args:
        num_threads: Field ``runtime.num_threads`` of the configuration.
    """
    num_cores = machine.num_cores()
    chosen = session_config(num_threads).intra_op_parallelism_threads
    return {
        "cpu_model": machine.cpu_model(),
        "num_cores": num_cores,
        "num_threads": chosen or num_cores,
        # This distinguishes builds of the same version.
        "tensorflow_build": f"{tf.version.GIT_VERSION}, {tf.version.COMPILER_VERSION}",
        "versions": versions(),
    }


def to_line(record: BenchmarkRecord) -> str:
    """Return a measurement as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def to_table(records: List[BenchmarkRecord]) -> str:
    """Return the measurements of one benchmark as a table."""
    first = records[0]
    heading = (
        f"{first['device']} ({first['cpu_model']}, {first['num_threads']} threads per "
        f"rank), TensorFlow {first['versions']['tensorflow']}\n"
        f"ranks: {first['num_ranks']}, batch size per rank: "
        f"{first['batch_size_per_rank']}, image size: {first['image_size']}, steps: "
        f"{first['num_steps']} after {first['num_warmup_steps']} of warm-up"
    )
    header = (
        *("", "images/s", "lowest - highest", "per CPU s"),
        *("ms/step p50", "p90", "p99", "waiting", "peak MiB"),
    )
    rows = [header, *map(_row, records)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
    return "\n".join([heading, *lines])


def _row(record: BenchmarkRecord) -> Sequence[str]:
    low, high = record["images_per_sec_lowest"], record["images_per_sec_highest"]
    share = record["input_wait_share"]
    missing = "-" if record["mode"] == "input" else "not available"
    return (
        f"{record['mode']}, {record['input']}",
        f"{record['images_per_sec']:.1f}",
        f"{low:.1f} - {high:.1f}",
        f"{record['images_per_cpu_sec']:.1f}",
        *(f"{record[f'step_ms_p{p}']:.1f}" for p in (50, 90, 99)),
        missing if share is None else f"{share:.1%}",
        f"{record['peak_rss_mib']:.0f}",
    )
