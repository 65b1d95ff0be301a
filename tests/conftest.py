"""What tests share: pictures, drawn and converted once, and their patience."""

import pytest
from hypothesis import HealthCheck, settings

from tests import pictures

CLASS_NAMES = ("apple", "ocean", "tree")

# A busy machine fails no test.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


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
