"""The input pipeline: sharded by rank, augmented, and reproducible at every step."""

from alexnet_estimator.inputs.augmentation import Features, mix_targets
from alexnet_estimator.inputs.batches import (
    eval_batches,
    normalise,
    picture_batches,
    train_batches,
)
from alexnet_estimator.inputs.damage import naming_damage
from alexnet_estimator.inputs.pictures import decode_for_eval, eval_batch_size
from alexnet_estimator.inputs.shards import (
    Reader,
    Slice,
    num_eval_steps,
    part_edges,
    reading_order,
    slices_of,
    slices_of_rank,
)

__all__ = [
    "Features",
    "Reader",
    "Slice",
    "decode_for_eval",
    "eval_batch_size",
    "eval_batches",
    "mix_targets",
    "naming_damage",
    "normalise",
    "num_eval_steps",
    "part_edges",
    "picture_batches",
    "reading_order",
    "slices_of",
    "slices_of_rank",
    "train_batches",
]
