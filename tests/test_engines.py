"""TensorFlow 1.15 and 2.15 continue the runs of each other.

This needs the environments of both engines, which ``tests/run.sh`` creates.  Run as a
program, this file is the part that runs in the other engine.
"""

import pathlib
import shutil
import subprocess
import sys
from typing import Any, Dict

import numpy as np
import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator import config, engine, inputs, run_record, runtime
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.jobs import evaluate
from alexnet_estimator.jobs.benchmark import job as benchmark
from alexnet_estimator.jobs.benchmark import request
from alexnet_estimator.jobs.export import graphs
from alexnet_estimator.jobs.export import job as export
from alexnet_estimator.jobs.session import open_run
from alexnet_estimator.networks.alexnet_graph import alexnet
from alexnet_estimator.report import write_report
from alexnet_estimator.runtime import npu
from alexnet_estimator.runtime.local import LocalRuntime
from tests import pictures, tiny, training

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENTS = {True: ("2.15",), False: ("1.15-intel", "1.15", "1.15-found")}
ENGINES = ("this", "other")
NUM_STEPS, MORE_STEPS = 20, 24
TOLERANCE = 1e-3  # Relative difference of losses, which are summed in another order.


def find_other_python() -> str:
    """Return the interpreter of the other engine's environment, or an empty text."""
    for name in ENVIRONMENTS[engine.is_1_15()]:
        stamp = ROOT / ".venv" / name / "complete"
        if stamp.exists() and "tests" in stamp.read_text().split():
            return str(stamp.parent / "bin" / "python")
    return ""


def train(data_dir: str, model_dir: pathlib.Path, num_steps: int) -> None:
    training.run_job(
        data_dir,
        model_dir,
        data={"use_augmentation": False},
        optim={"learning_rate": 0.01, "ema_decay": 0.9},
        train={"steps": num_steps},
    )


def begin(folder: pathlib.Path, data_dir: str) -> None:
    """Train and export with this engine; write down its pictures and masks."""
    train(data_dir, folder / "run", NUM_STEPS)
    settings = run_record.read(str(folder / "run/config.json")).config
    export.export(settings, str(folder / "run"), str(folder / "export"))
    np.savez(str(folder / "streams"), **draw_streams(data_dir, folder))


def draw_streams(data_dir: str, folder: pathlib.Path) -> Dict[str, np.ndarray]:
    """Return a batch, initial weights and a mask that this engine draws from a seed."""
    job = training.open_job(data_dir, folder, data={"colour_noise_std": 0.1})
    ((features, labels),) = tiny.read(
        lambda: inputs.train_batches(job.dataset, job.config.data, job.reader, 3), 1
    )
    with tf.Graph().as_default(), tiny.session() as session:
        mask = LocalRuntime("cpu").dropout(tf.ones([64]), 0.5, tf.constant([7, 8]))
        alexnet(tf.zeros([1, 63, 63, 3]), 3, job.config.model)
        weights = {v.op.name: v for v in tf.trainable_variables()}
        session.run(tf.global_variables_initializer())
        drawn = session.run({**weights, "mask": mask})
        return {**features, **drawn, "labels": labels}


def go_on(begun: pathlib.Path, folder: pathlib.Path, data_dir: str) -> None:
    """Evaluate, resume and serve the run of an engine with this one."""
    images = np.load(str(begun / "streams.npz"))["image"]
    saved_model, frozen = begun / "export/saved_model/1", begun / "export/model.pb"
    outputs = graphs.run_saved_model(str(saved_model), "images", images)
    shutil.copytree(str(begun / "run"), str(folder))
    evaluate.evaluate(training.open_job(data_dir, folder, optim={"ema_decay": 0.9}))
    train(data_dir, folder, MORE_STEPS)
    np.savez(
        str(folder / "served"),
        saved_model=outputs["probabilities"],
        frozen=graphs.run_frozen(str(frozen), images),
    )


def run_half(folder: pathlib.Path, name: str, data_dir: str) -> None:
    begin(folder / name, data_dir)
    for begun in ENGINES:
        if (folder / begun).exists():
            go_on(folder / begun, folder / f"{begun}, then {name}", data_dir)
    write_report([str(folder / f"this, then {name}")])


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> pathlib.Path:
    """Return a folder with the runs of each engine, continued by both engines."""
    python = find_other_python()
    if not python:
        pytest.skip("only one engine has an environment here, see tests/run.sh")
    folder = tmp_path_factory.mktemp("engines")
    run_half(folder, "this", data_dir)
    command = [python, "-m", "tests.test_engines", str(folder), data_dir]
    subprocess.run(command, cwd=str(ROOT), check=True)
    go_on(folder / "other", folder / "other, then this", data_dir)
    return folder


def losses(model_dir: pathlib.Path) -> Dict[int, float]:
    return {r["step"]: r["loss"] for r in training.metrics(model_dir, "train")}


def test_first_losses_agree(halves: pathlib.Path) -> None:
    this, other = [losses(halves / name / "run") for name in ENGINES]
    assert len(this) >= NUM_STEPS - 1
    assert this[NUM_STEPS] < 0.9 * this[2]
    assert other == pytest.approx(this, rel=TOLERANCE)


def test_pictures_and_random_numbers_are_the_same(halves: pathlib.Path) -> None:
    this, other = [np.load(str(halves / n / "streams.npz")) for n in ENGINES]
    assert 0.5 < this["mask"].mean() < 1.5 and np.ptp(this["colour_offset"]) > 1
    exact = set(this.files) - {"colour_offset"}
    assert {"image", "labels", "mask", "alexnet/fc8/kernel"} <= exact
    for name in exact:
        np.testing.assert_array_equal(other[name], this[name], err_msg=name)
    found, expected = other["colour_offset"], this["colour_offset"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("begun", ENGINES)
def test_evaluations_are_the_same(halves: pathlib.Path, begun: str) -> None:
    before = training.evaluation(halves / begun / "run", NUM_STEPS)
    for name in ENGINES:
        after = training.evaluation(halves / f"{begun}, then {name}", NUM_STEPS)
        assert after.pop("loss") == pytest.approx(before["loss"], rel=1e-5)
        assert {**after, "loss": before["loss"]} == before


@pytest.mark.parametrize("begun", ENGINES)
def test_each_goes_on_with_training(halves: pathlib.Path, begun: str) -> None:
    before = losses(halves / begun / "run")
    this, other = [losses(halves / f"{begun}, then {name}") for name in ENGINES]
    assert len(this) >= MORE_STEPS - 2 and this.items() > before.items()
    assert other.items() > before.items()
    assert other == pytest.approx(this, rel=TOLERANCE)


@pytest.mark.parametrize("begun", ENGINES)
@pytest.mark.parametrize("kind", ["saved_model", "frozen"])
def test_each_serves_exports(halves: pathlib.Path, begun: str, kind: str) -> None:
    this, other = [
        np.load(str(halves / f"{begun}, then {name}" / "served.npz"))[kind]
        for name in ENGINES
    ]
    assert np.ptp(this, axis=0).min() > 0.01
    np.testing.assert_allclose(other, this, atol=1e-5)


@pytest.fixture
def as_2_15(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "is_1_15", lambda: False)


def test_rooms_run_in_graph_mode() -> None:
    assert not tf.executing_eagerly()
    with tf.Graph().as_default():
        variable = tf.get_variable("x", [])
    # This is a reference variable, not a resource.
    assert variable.dtype != variable.dtype.base_dtype


@pytest.mark.usefixtures("as_2_15")
def test_what_2_15_lacks_is_refused_before_anything_is_done(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    source = pictures.make_folder(tmp_path / "pictures", num_per_class=2)
    words = ["train", f"--data_path={source}", f"--model_dir={tmp_path}/run"]
    words += ["--config.optim.optimizer=lars", "--device=npu", "--batch_size=0"]
    assert cli.main(words) == 2
    shown = capsys.readouterr().err
    for part in ("3 problems", "lars", "contrib", "npu_bridge", "batch_size_per_rank"):
        assert part in shown
    assert not list(tmp_path.glob("run*"))


@pytest.mark.usefixtures("as_2_15")
def test_a_run_of_lars_can_be_evaluated_on_2_15() -> None:
    settings = tiny.config(optim={"optimizer": "lars"})
    config.validate(settings)
    with pytest.raises(ConfigError, match="lars.*only TensorFlow 1.15"):
        config.validate(settings, "train")


@pytest.mark.usefixtures("as_2_15")
def test_a_run_of_lars_is_not_trained_from_python_on_2_15(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    lars = tiny.config(data={"path": data_dir}, optim={"optimizer": "lars"})
    model_dir = str(tmp_path / "run")
    with pytest.raises(ConfigError, match="lars.*only TensorFlow 1.15"):
        open_run(lars, model_dir)
    with pytest.raises(ConfigError, match="lars.*only TensorFlow 1.15"):
        benchmark.benchmark(lars, model_dir, request.BenchmarkRequest())
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize("device", ["auto", "npu"])
def test_npus_need_1_15(
    device: str, monkeypatch: pytest.MonkeyPatch, as_2_15: Any
) -> None:
    monkeypatch.setattr(npu, "has_devices", lambda: True)
    with pytest.raises(ConfigError, match="1.15.*--device=cpu"):
        runtime.settle_device(device)
    with pytest.raises(ConfigError, match="1.15.*--device=cpu"):
        runtime.find_launch_backend(device)
    assert runtime.settle_device("cpu") == "cpu"


def test_1_15_is_known_without_importing_it() -> None:
    assert engine.is_1_15() == tf.__version__.startswith("1.15.")


if __name__ == "__main__":
    run_half(pathlib.Path(sys.argv[1]), "other", sys.argv[2])
