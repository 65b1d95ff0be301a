"""Errors that name the damaged record, which TensorFlow's errors do not."""

import contextlib
from typing import Iterator, List

from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.inputs.batches import Reader
from alexnet_estimator.inputs.shards import slices_of
from alexnet_estimator.records.dataset import Dataset, Shard
from alexnet_estimator.records.verify import check_shards

# TensorFlow raises these for damaged records, pictures that cannot be decoded, and
# missing files.
_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
)


@contextlib.contextmanager
def naming_damage(dataset: Dataset, reader: Reader) -> Iterator[None]:
    """Name the file and the record if reading a batch fails.

    Args:
        dataset: Data set that is read, which is not synthetic.
        reader: Rank and batch size.

    Raises:
        DataError: A record is damaged; raised in place of TensorFlow's error.
    """
    try:
        yield
    except _ERRORS as error:
        # Checksums find damaged records without decoding, which takes much longer.
        decode = isinstance(error, tf.errors.InvalidArgumentError)
        checks = check_shards(dataset, _shards_of_rank(dataset, reader), decode)
        damages = [str(damage) for check in checks for damage in check.damages]
        if not damages:
            raise
        advice = (
            "copy the data again, convert it again, or leave out up to N records with "
            "--config.data.max_bad_records=N"
        )
        raise DataError(damages, dataset.directory, advice) from error


def _shards_of_rank(dataset: Dataset, reader: Reader) -> List[Shard]:
    """Return the shards of all splits that this rank reads."""
    shards: List[Shard] = []
    for name, split in dataset.splits.items():
        read = {part.path for part in slices_of(dataset, name, reader)}
        paths = dataset.shard_paths(name)
        shards += [s for s, path in zip(split.shards, paths) if path in read]
    return shards
