"""Training with batches that are not finite, and with a trace of every step.

``python -m tests.faults.spoiled SPEC VERB ...`` runs such a rank.  SPEC has the fields
of ``Spoil`` as JSON.
"""

import contextlib
import hashlib
import json
import os
import sys
from typing import Any, Dict, Iterator, List, NamedTuple
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from alexnet_estimator import __main__ as cli
from alexnet_estimator import inputs
from alexnet_estimator.hooks.guard import FiniteGuard
from tests.training import without_report


class Spoil(NamedTuple):
    """Description of the batches that are not finite.

    Attributes:
        trace: Path of the trace, to which the number of the rank is appended.
        value: Text of the number that is added to the pixels, ``inf`` or ``nan``.
        batches: Numbers of the spoiled batches, counted from 0 in every session.
        rank: Rank that gets the spoiled batches.
    """

    trace: str
    value: str
    batches: List[int]
    rank: int = 0


@contextlib.contextmanager
def spoiled(spoil: Spoil, rank: int = 0) -> Iterator[None]:
    """Spoil batches of this process, and write the state after every step."""
    make_batches, after_run = inputs.train_batches, FiniteGuard.after_run
    bad = np.array(spoil.batches if spoil.rank == rank else [], np.int64)

    def add_offset(number: tf.Tensor, batch: Any) -> Any:
        is_bad = tf.reduce_any(tf.equal(number, bad))
        value = tf.where(is_bad, float(spoil.value), 0.0)
        offset = tf.fill([batch[1].shape[0].value, 3], value)
        return dict(batch[0], colour_offset=offset), batch[1]

    def make_spoiled(*arguments: Any) -> tf.data.Dataset:
        batches = make_batches(*arguments)
        return batches.apply(tf.data.experimental.enumerate_dataset()).map(add_offset)

    def trace(guard: FiniteGuard, context: Any, values: Any) -> None:
        state = context.session.run({v.op.name: v for v in tf.global_variables()})
        with open(f"{spoil.trace}.{rank}", "a", encoding="utf-8") as file:
            file.write(json.dumps(_describe(state)) + "\n")
        after_run(guard, context, values)

    with mock.patch.object(inputs, "train_batches", make_spoiled), mock.patch.object(
        FiniteGuard, "after_run", trace
    ):
        yield


def _describe(state: Dict[str, Any]) -> Dict[str, Any]:
    digest = hashlib.sha256()
    for name in sorted(state):
        if not name.startswith("loss_scale/"):
            digest.update(name.encode() + np.asarray(state[name]).tobytes())
    return {
        "step": int(state["global_step"]),
        "scale": float(state.get("loss_scale/scale", 1)),
        "num_skipped": int(state.get("loss_scale/num_skipped", 0)),
        "weights_and_slots": digest.hexdigest(),
    }


def read_trace(spoil: Spoil, rank: int = 0) -> List[Dict[str, Any]]:
    """Return the state of a rank after every step."""
    with open(f"{spoil.trace}.{rank}", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    own_rank = int(os.environ["HOROVOD_RANK"])
    with without_report(), spoiled(Spoil(**json.loads(sys.argv[1])), own_rank):
        sys.exit(cli.main(sys.argv[2:]))
