"""Pictures as sharded TFRecords: finding, converting, opening and verifying them."""

import hashlib
import os
from typing import Optional

from alexnet_estimator.config import Config, default_config
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import clean_copies, convert, manifest, sample
from alexnet_estimator.records.dataset import Dataset

SAMPLE_PREFIX = "sample:"


def open_dataset(
    path: str,
    cache_directory: str = "",
    settings: Optional[Config] = None,
    label_offset: int = 0,
    max_bad_records: int = 0,
    digest: str = "",
) -> Dataset:
    """Open data in any form; pictures are converted first, once.

    Processes of one machine may call this at the same time: one converts, the others
    wait.  A conversion in the cache is never changed: another state of the pictures
    gets a folder of its own.

    Args:
        path: Converted data, foreign ImageNet TFRecords, a folder or zip of pictures
            (see ``layouts``), or ``sample:mono_poly``, ``sample:defective``.
        cache_directory: Folder into which pictures are converted; converted data need
            none.
        settings: Section ``convert`` of the configuration; None: the default.
        label_offset: Number by which the labels of foreign TFRecords are reduced.
        max_bad_records: Damaged records that may be left out; 0: records are not read.
        digest: Digest of the data that a run has recorded.  Where they are in the
            cache they are opened, even if the pictures have changed since.

    Raises:
        DataError: There is nothing, nothing that can be used, or too much damage.
    """
    if not path:
        raise DataError("no data: give --data_path=FOLDER, or sample:mono_poly")
    if not cache_directory and (max_bad_records or not manifest.is_dataset(path)):
        raise DataError(
            "is converted or copied into a cache_directory, and none was given: name "
            "one, or open data that `convert` has made",
            path,
        )
    path = _fetch(path, cache_directory)
    if manifest.is_dataset(path):
        dataset = manifest.load(path, label_offset, cache_directory)
    else:
        recorded = _find_recorded(path, cache_directory, digest)
        settings = settings or default_config().convert
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
    """Return what ``open_dataset`` would open, without converting any picture.

    Pictures that have not been converted are listed and counted.  Their data set has no
    files yet and no colours, and counts pictures that cannot be decoded as well.

    Raises:
        DataError: There is nothing, or nothing that can be used.
    """
    path = _fetch(path, cache_directory)
    if manifest.is_dataset(path):
        return manifest.load(path, label_offset, cache_directory)
    pictures, wanted = convert.find_pictures(path, settings)
    folder = _choose_folder(path, cache_directory, settings, wanted)
    finished = convert.load_finished(folder, wanted)
    return finished or convert.preview(pictures, folder, settings)


def _fetch(path: str, cache_directory: str) -> str:
    """Return the path itself, or where the sample data that it names are."""
    if not path.startswith(SAMPLE_PREFIX):
        return path
    return sample.fetch_sample(cache_directory, path[len(SAMPLE_PREFIX) :])


def _find_recorded(path: str, cache_directory: str, digest: str) -> Optional[Dataset]:
    """Return the conversion of these pictures that has a digest, if there is one."""
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
    """Return a folder of its own for every state of the pictures."""

    def folder_of(text: str, num_digits: int) -> str:
        text = f"{os.path.realpath(path)} {text}"
        digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:num_digits]
        return os.path.join(cache_directory, f"{_name_of(path)}-{digest}")

    # Up to 1.0 the options alone made the name, in this form.
    options = {name: settings[name] for name in sorted(convert.OPTIONS)}
    options["num_workers"] = 0
    old = folder_of(str(sorted(options.items())), 8)
    is_there = convert.load_finished(old, fingerprint) is not None
    return old if is_there else folder_of(fingerprint, 12)


def _name_of(path: str) -> str:
    return os.path.splitext(os.path.basename(os.path.realpath(path)))[0]
