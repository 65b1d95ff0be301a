"""Pictures as sharded TFRecords: finding, converting, opening and verifying them."""

import hashlib
import os

from alexnet_estimator.config import Config
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import clean_copies, convert, manifest, sample
from alexnet_estimator.records.dataset import Dataset

SAMPLE_PREFIX = "sample:"


def open_dataset(
    path: str,
    cache_directory: str,
    settings: Config,
    label_offset: int = 0,
    max_bad_records: int = 0,
) -> Dataset:
    """Open data in any form; pictures are converted first, once.

    Processes of one machine may call this at the same time: one converts, the others
    wait.

    Args:
        path: converted data, foreign ImageNet TFRecords, a folder or zip of pictures
            (see ``layouts``), or ``sample:mono_poly``, ``sample:defective``.
        cache_directory: where pictures are converted to.
        settings: the section ``convert`` of the configuration.
        label_offset: what the labels of foreign TFRecords have to be reduced by.
        max_bad_records: damaged ones that may be left out; 0: records are not read.

    Raises:
        DataError: nothing there, nothing that can be used, or too much damage.
    """
    if not path:
        raise DataError("no data: give --data_path=FOLDER, or sample:mono_poly")
    if path.startswith(SAMPLE_PREFIX):
        path = sample.fetch_sample(cache_directory, path[len(SAMPLE_PREFIX) :])
    if not manifest.is_dataset(path):
        cache = _cache_of(path, cache_directory, settings)
        convert.convert(path, cache, settings)
        path = cache
    dataset = manifest.load(path, label_offset)
    manifest.check_files(dataset)
    if max_bad_records == 0:
        return dataset
    return clean_copies.leave_out_damaged(dataset, cache_directory, max_bad_records)


def _cache_of(path: str, cache_directory: str, settings: Config) -> str:
    """Return a folder of its own for every source and options."""
    path = os.path.realpath(path)
    options = {**settings, "num_workers": 0}
    digest = hashlib.sha256(f"{path} {sorted(options.items())}".encode()).hexdigest()
    name = os.path.splitext(os.path.basename(path))[0]
    return os.path.join(cache_directory, f"{name}-{digest[:8]}")
