"""Data are opened in any form, and pictures are converted once into the cache."""

import hashlib
import os
import pathlib
from typing import Any, List

import pytest

from alexnet_estimator import records, run_record
from alexnet_estimator.errors import DataError
from alexnet_estimator.jobs import data
from alexnet_estimator.records import convert, manifest
from tests import pictures, tiny


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "cache")


def test_converted_data_is_loaded(tmp_path: pathlib.Path, cache: str) -> None:
    dataset = pictures.make_dataset(tmp_path)
    settings = pictures.settings()
    assert records.open_dataset(dataset.directory, cache, settings) == dataset
    assert records.open_dataset(dataset.directory) == dataset
    with pytest.raises(DataError, match="no cache_directory was given"):
        records.open_dataset(str(tmp_path))
    assert not os.path.exists(cache)


@pytest.mark.parametrize("is_zip", [False, True])
def test_pictures_are_converted_once(
    tmp_path: pathlib.Path, cache: str, is_zip: bool
) -> None:
    source = pictures.make_folder(tmp_path / "pets")
    if is_zip:
        source = pictures.make_zip(source, tmp_path / "pets.zip")
    first = records.open_dataset(source, cache, pictures.settings())
    assert os.path.dirname(first.directory) == cache
    assert os.path.basename(first.directory).startswith("pets-")
    before = os.stat(os.path.join(first.directory, "dataset.json")).st_ino
    again = records.open_dataset(source, cache, pictures.settings(num_workers=2))
    assert again == first
    assert os.stat(os.path.join(first.directory, "dataset.json")).st_ino == before


def test_changed_pictures_and_options_are_converted_again(
    tmp_path: pathlib.Path, cache: str
) -> None:
    source = pictures.make_folder(tmp_path / "pets")
    first = records.open_dataset(source, cache, pictures.settings())
    smaller = records.open_dataset(source, cache, pictures.settings(short_side=16))
    assert smaller.directory != first.directory
    assert records.open_dataset(source, cache, pictures.settings()) == first
    pictures.draw(0, 77).save(str(tmp_path / "pets" / "cat" / "77.jpg"))
    changed = records.open_dataset(source, cache, pictures.settings())
    assert sum(split.num_images for split in changed.splits.values()) == 21
    # A job that reads the first conversion can continue to read it.
    assert changed.directory != first.directory
    manifest.check_files(first)
    settings = pictures.settings()
    recorded = records.open_dataset(source, cache, settings, digest=first.digest)
    assert recorded == first
    unknown = records.open_dataset(source, cache, settings, digest="0" * 64)
    assert unknown == changed


def test_who_reads_a_run_opens_what_it_recorded(tmp_path: pathlib.Path) -> None:
    """If the pictures change, no data are converted while a job reads them."""
    source, model_dir = pictures.make_folder(tmp_path / "pets"), str(tmp_path / "run")
    convert_options = dict(pictures.settings())
    config = tiny.config(data={"path": source}, convert=convert_options)
    first = data.open_data(config, model_dir)
    os.mkdir(model_dir)
    record = run_record.RunRecord(
        config, class_names=first.class_names, data_digest=first.digest
    )
    run_record.write(run_record.path_of(model_dir), record)
    os.remove(os.path.join(source, "cat", "0.jpg"))
    assert data.open_data(config, model_dir, is_training=False) == first
    assert os.listdir(f"{model_dir}.data") == [os.path.basename(first.directory)]
    assert data.open_data(config, model_dir).digest != first.digest
    manifest.check_files(first)
    # If other pictures are named, these are converted.
    other = pictures.make_folder(tmp_path / "b" / "pets", num_per_class=3)
    config = tiny.config(data={"path": other}, convert=convert_options)
    found = data.open_data(config, model_dir, is_training=False)
    assert sum(split.num_images for split in found.splits.values()) == 6


def test_a_conversion_of_before_is_opened(tmp_path: pathlib.Path, cache: str) -> None:
    """Up to version 1.0, the name of the folder depended only on the options."""
    source = pictures.make_folder(tmp_path / "pets")
    digest = hashlib.sha256(
        f"{source} [('eval_fraction', 0.2), ('eval_images', 0), ('images_per_shard', "
        "0), ('jpeg_quality', 90), ('num_workers', 0), ('short_side', 32), "
        "('split_seed', 0)]".encode()
    ).hexdigest()
    old = os.path.join(cache, f"pets-{digest[:8]}")
    convert.convert(source, old, pictures.settings(), show_progress=False)
    dataset = records.open_dataset(source, cache, pictures.settings())
    assert dataset.directory == old and os.listdir(cache) == [os.path.basename(old)]


def test_sources_of_one_name_do_not_meet(tmp_path: pathlib.Path, cache: str) -> None:
    first = pictures.make_folder(tmp_path / "a" / "pets")
    second = pictures.make_folder(tmp_path / "b" / "pets", ["x", "y"])
    settings = pictures.settings()
    cats = records.open_dataset(first, cache, settings)
    others = records.open_dataset(second, cache, settings)
    assert cats.class_names == ("cat", "dog") and others.class_names == ("x", "y")
    assert cats.directory != others.directory


def test_each_fold_has_its_folder_and_is_not_taken_for_another(
    tmp_path: pathlib.Path, cache: str
) -> None:
    source = pictures.make_folder(tmp_path / "pets")
    plain = records.open_dataset(source, cache, pictures.settings())
    assert "fold" not in plain.conversion and "num_folds" not in plain.conversion
    folds = [pictures.settings(num_folds=2, fold=fold) for fold in (0, 1)]
    made = [records.open_dataset(source, cache, settings) for settings in folds]
    assert len({dataset.directory for dataset in [plain, *made]}) == 3
    assert made[0].splits["validation"].class_counts == (5, 5)
    assert records.open_dataset(made[1].directory, cache, folds[1]) == made[1]
    functions: List[Any] = [records.open_dataset, records.preview_dataset]
    for settings in (pictures.settings(num_folds=3, fold=1), folds[0]):
        for open_data in functions:
            with pytest.raises(DataError, match=r"\[2, 1\] when the data were conv"):
                open_data(made[1].directory, cache, settings)


def test_the_sample_is_fetched_by_name(
    tmp_path: pathlib.Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures.make_folder(tmp_path / "cells", ["functional", "defective"])
    asked = []

    def fetch(cache_directory: str, task: str) -> str:
        asked.append((cache_directory, task))
        return source

    monkeypatch.setattr(records.sample, "fetch_sample", fetch)
    dataset = records.open_dataset("sample:defective", cache, pictures.settings())
    assert asked == [(cache, "defective")]
    assert dataset.class_names == ("defective", "functional")


@pytest.mark.parametrize(
    "path, message",
    [("", "no data: give --data_path"), ("nowhere", "no such folder"), (".", "no pic")],
)
def test_mistakes(tmp_path: pathlib.Path, cache: str, path: str, message: str) -> None:
    path = path and str(tmp_path / path)
    with pytest.raises(DataError, match=message) as error:
        records.open_dataset(path, cache, pictures.settings())
    assert error.value.exit_code == 3
    assert not os.path.exists(cache)
