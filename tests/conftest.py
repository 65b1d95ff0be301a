"""Fixtures and settings that tests share, such as pictures that are drawn once."""

import signal
from typing import List

import pytest
from hypothesis import HealthCheck, settings

from tests import pictures

CLASS_NAMES = ("apple", "ocean", "tree")

# A busy machine must not fail a test, nor must a run of large random examples.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("patient")

# Files that take longer than 20 seconds, the longest first.  With this order, the
# processes that run the tests end at about the same time.
SLOW_FILES = (
    "test_faults",
    "test_train",
    "test_ranks",
    "test_full_disk",
    "test_model_fn",
    "test_numbers",
    "test_run_folder",
    "test_warm_start",
    "test_launch_hangs",
    "test_engines",
    "test_launch_signals",
    "test_inputs",
    "test_networks",
    "test_benchmark",
    "test_export",
    "test_npu_jobs",
    "test_checkpoints_damage",
    "test_every_operation",
    "test_records_convert",
    "test_runtime_npu",
    "test_records_damage",
    "test_api",
)


def pytest_configure() -> None:
    """Let signals act as in a terminal, whichever way the tests were started.

    Behind ``nohup``, or ``&`` in a script, SIGHUP and SIGINT are ignored, and jobs that
    the tests start would inherit that.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Move the slow files to the beginning."""
    places = {name: place for place, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder of 60 pictures, 20 of each class."""
    folder = tmp_path_factory.mktemp("drawn") / "fruit & water"
    return pictures.make_folder(folder, CLASS_NAMES, 20, (80, 72))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return converted data: 49 images to train in 3 files, 11 to evaluate in one."""
    folder = tmp_path_factory.mktemp("converted")
    dataset = pictures.make_dataset(
        folder, CLASS_NAMES, 20, images_per_shard=20, eval_images=11
    )
    return dataset.directory
