"""Errors that name the damaged record, which TensorFlow's errors do not."""

import contextlib
from typing import Iterator, List

from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.inputs.batches import Reader
from alexnet_estimator.inputs.shards import slices_of_rank
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
    for split in dataset.splits.values():
        sizes = [(shard.file, shard.num_images) for shard in split.shards]
        parts = slices_of_rank(sizes, reader.rank, reader.num_ranks)
        read = {part.path for part in parts}
        shards += [shard for shard in split.shards if shard.file in read]
    return shards
