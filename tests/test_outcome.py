"""A trained model gives the right samples and report at the end of training."""

import base64
import io
import json
import pathlib
import tempfile
from typing import Any, Dict, List
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from alexnet_estimator import inputs
from alexnet_estimator.hooks.answers import Answer, choose_shown
from alexnet_estimator.hooks.heartbeat import Heartbeat
from alexnet_estimator.jobs import evaluate, outcome, pictures
from alexnet_estimator.jobs import samples as samples_job
from alexnet_estimator.jobs.session import Run
from tests import tiny
from tests.conftest import CLASS_NAMES
from tests.training import evaluation, open_job, train

STEP = 4


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Run:
    """Train a few steps."""
    model_dir = tmp_path_factory.mktemp("outcome") / "run"
    run = open_job(data_dir, model_dir, train={"steps": STEP})
    train(run)
    return run


@pytest.fixture(scope="module")
def answers(job: Run) -> List[Answer]:
    """Return some answers of the evaluation."""
    return evaluate.evaluate_sums(job, f"{job.model_dir}/model.ckpt-{STEP}")["shown"]


@pytest.fixture(scope="module")
def phases(job: Run, answers: List[Answer]) -> List[str]:
    """Write the outcome; return the phases of the heartbeats."""
    with tempfile.TemporaryFile() as file:
        heartbeat = Heartbeat(file.fileno())
        with mock.patch.object(heartbeat, "beat", wraps=heartbeat.beat) as beat:
            result = evaluation(job.model_dir, STEP)
            path = outcome.write_outcome(job, result, answers, heartbeat)
    assert path == f"{job.model_dir}/report.html"
    return [call[0][0] for call in beat.call_args_list]


@pytest.fixture(scope="module")
def samples(job: Run, phases: List[str]) -> Dict[str, Any]:
    """Return the content of samples.json."""
    file = pathlib.Path(job.model_dir, "samples.json")
    return json.loads(file.read_text(encoding="utf-8"))


def test_samples_are_what_the_evaluation_counted(
    job: Run, samples: Dict[str, Any]
) -> None:
    # All of the 11 pictures are shown, although the last batch is not full.
    matrix = np.zeros([3, 3], int)
    for picture in samples["pictures"]:
        matrix[picture["label"], picture["answers"][0][0]] += 1
    assert matrix.tolist() == evaluation(job.model_dir, STEP)["confusion_matrix"]
    counts = [samples[name] for name in ("global_step", "num_images", "num_mistakes")]
    assert counts == [STEP, 11, 11 - np.trace(matrix)]


def test_mistakes_come_first_the_most_confident_ahead(samples: Dict[str, Any]) -> None:
    pairs = [
        (picture["answers"][0][0] == picture["label"], picture["answers"][0][1])
        for picture in samples["pictures"]
    ]
    mistakes = [probability for is_right, probability in pairs if not is_right]
    assert mistakes and mistakes == sorted(mistakes, reverse=True)
    assert [is_right for is_right, _ in pairs] == sorted(
        is_right for is_right, _ in pairs
    )


def test_a_sample_is_the_picture_of_its_file(samples: Dict[str, Any]) -> None:
    for picture in samples["pictures"]:
        assert picture["file"].split("/")[0] == CLASS_NAMES[picture["label"]]
        jpeg = io.BytesIO(base64.b64decode(picture["jpeg"]))
        with Image.open(jpeg) as image:
            # The converted pictures are 32 pixels high.
            assert image.format == "JPEG" and image.size[1] == 32
            colour = np.asarray(image).mean(axis=(0, 1))
        # Drawn red, blue and green, see tests.pictures.
        assert colour.argmax() == (0, 2, 1)[picture["label"]]


def test_pictures_that_cannot_be_read_are_left_out(
    job: Run, answers: List[Answer], capsys: pytest.CaptureFixture
) -> None:
    (path,) = job.dataset.shard_paths("validation")
    content = pathlib.Path(path).read_bytes()
    with mock.patch.object(samples_job.pictures, "decode", side_effect=OSError("odd")):
        assert samples_job.describe(job, answers) == []
    assert f"{path}: the picture of record 0 is not shown: " in capsys.readouterr().err
    pathlib.Path(path).write_bytes(content[:100])
    try:
        assert samples_job.read_samples(job, answers) == []
    finally:
        pathlib.Path(path).write_bytes(content)
    seen = capsys.readouterr().err
    assert seen.startswith(f"warning: {path}: its pictures are not shown: record 0")
    assert seen.count("warning") == 1


def test_the_report_shows_it(job: Run, samples: Dict[str, Any]) -> None:
    page = pathlib.Path(job.model_dir, "report.html").read_text(encoding="utf-8")
    assert samples["pictures"][0]["jpeg"] in page
    kernels = pathlib.Path(job.model_dir, "conv1_kernels.png").read_bytes()
    assert base64.b64encode(kernels).decode() in page


def test_a_long_report_does_not_look_like_a_hang(phases: List[str]) -> None:
    # Before the kernels and before the page.
    assert phases == ["report", "report"]


def test_what_goes_wrong_is_a_warning(
    job: Run, answers: List[Answer], capsys: pytest.CaptureFixture
) -> None:
    result = {**evaluation(job.model_dir, STEP), "global_step": 999}
    assert outcome.write_outcome(job, result, answers, Heartbeat(None)) is None
    seen = capsys.readouterr().err
    assert seen.startswith(f"warning: {job.model_dir}: no report: DataError")


def test_made_up_data_has_no_samples(
    job: Run, answers: List[Answer], samples: Dict[str, Any], data_dir: str
) -> None:
    made_up = {"synthetic": True, "synthetic_classes": 3, "path": ""}
    synthetic = open_job(data_dir, job.model_dir, data=made_up)
    file = pathlib.Path(job.model_dir, "samples.json")
    content = file.read_bytes()
    file.unlink()
    result = evaluation(job.model_dir, STEP)
    assert outcome.write_outcome(synthetic, result, answers, Heartbeat(None))
    assert not file.exists()
    file.write_bytes(content)


def test_twelve_of_each_kind_are_shown() -> None:
    mistakes = [Answer(0, n, 0, (1, 0), (0.5 + n / 100, 0.1)) for n in range(14)]
    right = [Answer(0, n, 0, (0, 1), (0.9, 0.1)) for n in range(14, 28)]
    mixed = [each for pair in zip(right, mistakes) for each in pair]
    assert choose_shown(mixed) == [*mistakes[:1:-1], *right[:12]]


def test_mistakes_are_drawn_with_both_classes(job: Run) -> None:
    answer = Answer(0, 0, 2, (1, 0, 2), (0.75, 0.2, 0.05))
    sample = samples_job.Sample(answer, Image.new("RGB", (400, 100), "red"), "x.jpg")
    with mock.patch.object(pictures.ImageDraw, "Draw") as drawing:
        png = pictures.draw_mistakes([sample], job)
    texts = [call[0][1] for call in drawing.return_value.text.call_args_list]
    assert texts == ["is tree", "75% ocean"]
    size = samples_job.THUMBNAIL_PIXELS
    tile = np.asarray(Image.open(io.BytesIO(png)))[4:-4, 4 : 4 + size]
    assert (tile[:size] == (255, 0, 0)).all() and (tile[size:] == 255).all()


def test_pictures_take_the_memory_of_thumbnails(
    job: Run, answers: List[Answer]
) -> None:
    photo = Image.new("RGB", (3000, 2000))
    with mock.patch.object(samples_job.pictures, "decode", return_value=photo):
        sample, *_ = samples_job.read_samples(job, answers[:1])
    assert sample.image.size == (320, 213)


def test_input_samples_are_the_batch_of_the_step(job: Run) -> None:
    png = pictures.draw_input_samples(job, step=3)
    canvas = np.asarray(Image.open(io.BytesIO(png)))
    side, gap = tiny.IMAGE_SIZE, 4
    assert canvas.shape == (2 * (side + gap) + gap, 4 * (side + gap) + gap, 3)
    (features, _), *_ = tiny.read(
        lambda: inputs.train_batches(job.dataset, job.config.data, job.reader, 3), 1
    )
    for index, image in enumerate(features["image"]):
        top, left = (gap + place * (side + gap) for place in divmod(index, 4))
        assert (canvas[top : top + side, left : left + side] == image).all()


def test_the_confusion_matrix_is_a_picture(job: Run) -> None:
    png = pictures.draw_confusion(evaluation(job.model_dir, STEP))
    assert png is not None and png.startswith(b"\x89PNG")
