"""The data of a run: opened, converted or previewed.

A launcher opens the data without TensorFlow, which takes seconds to load.
"""

import os

from alexnet_estimator import records, run_record
from alexnet_estimator.config import Config
from alexnet_estimator.records.dataset import Dataset, synthetic_dataset


def open_data(config: Config, model_dir: str, is_training: bool = True) -> Dataset:
    """Open converted data, after converting pictures if necessary.

    Args:
        config: Configuration of the job.
        model_dir: Folder of the run; pictures are converted to a folder beside it.
        is_training: Whether changed pictures are converted again.  Otherwise the
            recorded data of the run are opened, even if the pictures have changed.

    Raises:
        DataError: The data cannot be used.
    """
    if config.data.synthetic:
        return synthetic_dataset(config.data)
    digest = ""
    path = run_record.path_of(model_dir)
    if not is_training and os.path.isfile(path):
        record = run_record.read(path, config.model.network)
        old = record.config
        # A frozen section does not compare equal to one that is not frozen.
        is_same = dict(old.convert) == dict(config.convert)
        if is_same and old.data.path == config.data.path:
            digest = record.data_digest
    return records.open_dataset(
        config.data.path,
        _cache_of(model_dir),
        config.convert,
        config.data.label_offset,
        config.data.max_bad_records,
        digest,
    )


def preview_data(config: Config, model_dir: str) -> Dataset:
    """Return the description of the data of a run without converting pictures."""
    if config.data.synthetic:
        return synthetic_dataset(config.data)
    data, cache = config.data, _cache_of(model_dir)
    return records.preview_dataset(data.path, cache, config.convert, data.label_offset)


def _cache_of(model_dir: str) -> str:
    """Return the folder beside a run to which its pictures are converted."""
    return os.path.abspath(model_dir).rstrip(os.sep) + ".data"
