"""Data sets: finds, converts, opens and verifies pictures in sharded TFRecords."""

import hashlib
import os
from typing import Optional

from alexnet_estimator.config import Config, default_config
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import clean_copies, convert, manifest, sample
from alexnet_estimator.records.dataset import Dataset
from alexnet_estimator.records.splits import FOLD_OPTIONS

SAMPLE_PREFIX = "sample:"


def open_dataset(
    path: str,
    cache_directory: str = "",
    settings: Optional[Config] = None,
    label_offset: int = 0,
    max_bad_records: int = 0,
    digest: str = "",
) -> Dataset:
    """Open data in any form; pictures are converted when they are first opened.

    Several processes of one machine may call this at the same time: one of them
    converts, and the others wait.  A conversion in the cache is never changed, because
    a job may read it.  If the pictures change, they are converted into a new folder.

    Args:
        path: Converted data, foreign ImageNet TFRecords, a folder or zip of pictures
            (see ``layouts``), or ``sample:`` and a name of ``sample.TASKS``.
        cache_directory: Folder for conversions; may be empty for converted data.
        settings: Section ``convert`` of the configuration; None for the default.
        label_offset: Number that is subtracted from the labels of foreign TFRecords.
        max_bad_records: Largest number of damaged records that may be left out.  If it
            is 0, the records are not searched for damage.
        digest: Digest of the data that a run has recorded.  If the cache contains these
            data, they are opened even if the pictures have changed since.

    Raises:
        DataError: The path does not exist, contains no usable data, or contains too
            many damaged records.
    """
    if not path:
        raise DataError("no data: give --data_path=FOLDER, or sample:mono_poly")
    if not cache_directory and (max_bad_records or not manifest.is_dataset(path)):
        raise DataError(
            "this data must be converted or copied, but no cache_directory was given: "
            "name one, or open data that `convert` has written",
            path,
        )
    path = _fetch(path, cache_directory)
    settings = settings or default_config().convert
    if manifest.is_dataset(path):
        dataset = _load(path, cache_directory, settings, label_offset)
    else:
        recorded = _find_recorded(path, cache_directory, digest)
        dataset = recorded or _convert(path, cache_directory, settings)
    manifest.check_files(dataset)
    if max_bad_records == 0:
        if dataset.conversion:
            manifest.check_lengths(dataset, cache_directory)
        return dataset
    return clean_copies.leave_out_damaged(dataset, cache_directory, max_bad_records)


def preview_dataset(
    path: str, cache_directory: str, settings: Config, label_offset: int = 0
) -> Dataset:
    """Return the data set that ``open_dataset`` would open, without converting it.

    If the pictures have not been converted, they are only listed and counted.  The
    result then has no files and no measured colours, and its counts include pictures
    that cannot be decoded.

    Raises:
        DataError: The path does not exist, or contains no usable data.
    """
    path = _fetch(path, cache_directory)
    if manifest.is_dataset(path):
        return _load(path, cache_directory, settings, label_offset)
    pictures, wanted = convert.find_pictures(path, settings)
    folder = _choose_folder(path, cache_directory, settings, wanted)
    finished = convert.load_finished(folder, wanted)
    return finished or convert.preview(pictures, folder, settings)


def _fetch(path: str, cache_directory: str) -> str:
    """Return the path, or the folder of the sample data for ``sample:NAME``."""
    if not path.startswith(SAMPLE_PREFIX):
        return path
    return sample.fetch_sample(cache_directory, path[len(SAMPLE_PREFIX) :])


def _load(
    path: str, cache_directory: str, settings: Config, label_offset: int
) -> Dataset:
    """Open data that are converted already; refuse them if another fold is wanted."""
    dataset = manifest.load(path, label_offset, cache_directory)
    wanted, made = (
        [options.get(name, 0) for name in FOLD_OPTIONS]
        for options in (settings, dataset.conversion)
    )
    if settings.num_folds and wanted != made:
        raise DataError(
            f"convert.num_folds and convert.fold are {wanted}, but were {made} when "
            "the data were converted: give the pictures, or convert them again",
            path,
        )
    return dataset


def _find_recorded(path: str, cache_directory: str, digest: str) -> Optional[Dataset]:
    """Return the conversion of these pictures that has the digest, or None."""
    names = os.listdir(cache_directory) if os.path.isdir(cache_directory) else []
    for name in sorted(names):
        folder = os.path.join(cache_directory, name)
        if digest and name.startswith(f"{_name_of(path)}-"):
            if os.path.isfile(os.path.join(folder, manifest.FILE_NAME)):
                dataset = manifest.load(folder)
                if dataset.digest == digest:
                    return dataset
    return None


def _convert(path: str, cache_directory: str, settings: Config) -> Dataset:
    pictures, wanted = convert.find_pictures(path, settings)
    folder = _choose_folder(path, cache_directory, settings, wanted)
    return convert.convert_pictures(pictures, wanted, folder, settings)


def _choose_folder(
    path: str, cache_directory: str, settings: Config, fingerprint: str
) -> str:
    """Return the folder for a conversion; it differs for each state of the pictures."""

    def folder_of(text: str, num_digits: int) -> str:
        text = f"{os.path.realpath(path)} {text}"
        digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:num_digits]
        return os.path.join(cache_directory, f"{_name_of(path)}-{digest}")

    # Up to version 1.0, the name depended only on the options, in this form.
    # Such a folder is used if its conversion is complete and has the same fingerprint.
    options = convert.options_of(settings)
    options["num_workers"] = 0
    old = folder_of(str(sorted(options.items())), 8)
    is_there = convert.load_finished(old, fingerprint) is not None
    return old if is_there else folder_of(fingerprint, 12)


def _name_of(path: str) -> str:
    return os.path.splitext(os.path.basename(os.path.realpath(path)))[0]
