"""Training jobs that find damaged checkpoints, on one rank and on two."""

import os
import pathlib
import shutil
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.errors import DataError
from tests import tiny
from tests.ranks import run_ranks
from tests.training import metrics, run_job, train_words, variables

TRAINING = {"save_every_steps": 2, "keep_checkpoints": 9}


def go_on(data_dir: str, model_dir: Any, num_steps: int) -> None:
    run_job(data_dir, model_dir, train={**TRAINING, "steps": num_steps})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> str:
    """Return a run with checkpoints of the steps 2, 4, 6 and 8."""
    model_dir = tmp_path_factory.mktemp("trained") / "run"
    go_on(data_dir, model_dir, 8)
    return str(model_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Any:
    """Return the variables after 10 uninterrupted steps."""
    model_dir = tmp_path_factory.mktemp("whole") / "run"
    go_on(data_dir, model_dir, 10)
    return variables(model_dir)


@pytest.fixture
def model_dir(trained: str, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(trained, str(tmp_path / "run"))
    return tmp_path / "run"


def prefix_of(model_dir: pathlib.Path, step: int) -> str:
    return str(model_dir / f"model.ckpt-{step}")


def truncate_data(prefix: str) -> None:
    os.truncate(prefix + ".data-00000-of-00001", 5000)


def empty_index(prefix: str) -> None:
    os.truncate(prefix + ".index", 0)


def delete_data(prefix: str) -> None:
    os.remove(prefix + ".data-00000-of-00001")


def delete_index(prefix: str) -> None:
    os.remove(prefix + ".index")


DAMAGES = [truncate_data, empty_index, delete_data, delete_index]


# The other kinds of damage are tested below, and in tests/test_checkpoints.py.
@pytest.mark.parametrize("damage", [truncate_data, delete_index])
def test_training_goes_on_from_the_checkpoint_before(
    damage: Callable[[str], None],
    model_dir: pathlib.Path,
    data_dir: str,
    whole: Dict[str, Any],
    capsys: pytest.CaptureFixture,
) -> None:
    damaged = prefix_of(model_dir, 8)
    damage(damaged)
    left = sorted(path.name for path in model_dir.glob("model.ckpt-8.*"))
    go_on(data_dir, model_dir, 10)
    shown = capsys.readouterr()
    assert f"warning: damaged, moved to quarantine/: {damaged}: " in shown.err
    assert "starts from    step 6\n" in shown.out
    (event,) = metrics(model_dir, "quarantine")
    assert (event["checkpoint"], event["step"]) == (damaged, 6)
    assert event["problem"] in shown.err
    assert [r["step"] for r in metrics(model_dir, "start")] == [0, 6]
    assert sorted(os.listdir(str(model_dir / "quarantine"))) == left
    for name, value in variables(model_dir, 10).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
    # The step was saved again, and the new checkpoint is valid.
    assert restore.find_problem(damaged) is None
    go_on(data_dir, model_dir, 10)
    assert len(metrics(model_dir, "quarantine")) == 1


def test_damage_to_several_leads_further_back(
    model_dir: pathlib.Path, data_dir: str
) -> None:
    for step, damage in zip((8, 6, 4), DAMAGES):
        damage(prefix_of(model_dir, step))
    go_on(data_dir, model_dir, 10)
    found = [event["checkpoint"] for event in metrics(model_dir, "quarantine")]
    assert found == [prefix_of(model_dir, step) for step in (8, 6, 4)]
    assert metrics(model_dir, "start")[1]["step"] == 2


@pytest.mark.parametrize(
    "content",
    [
        b'model_checkpoint_path: "../../elsewhere/model.ckpt-2"\n',
        b"\xff\x00 nonsense {",
    ],
)
def test_a_bogus_checkpoint_file_does_no_harm(
    content: bytes, model_dir: pathlib.Path, data_dir: str
) -> None:
    (model_dir / "checkpoint").write_bytes(content)
    go_on(data_dir, model_dir, 8)
    assert metrics(model_dir, "start")[1]["step"] == 8
    assert metrics(model_dir, "quarantine") == []
    assert '"model.ckpt-8"' in (model_dir / "checkpoint").read_text()


def files_in(folder: pathlib.Path) -> Dict[str, int]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p): p.stat().st_mtime_ns for p in paths if "events" not in p.name}


def damage_all(model_dir: pathlib.Path) -> None:
    for step, damage in zip((2, 4, 6, 8), DAMAGES):
        damage(prefix_of(model_dir, step))


def test_without_a_valid_checkpoint_nothing_starts_from_scratch(
    model_dir: pathlib.Path, data_dir: str
) -> None:
    damage_all(model_dir)
    before = files_in(model_dir)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            go_on(data_dir, model_dir, 10)
        for step in (2, 4, 6, 8):
            assert prefix_of(model_dir, step) in str(caught.value)
        after = files_in(model_dir)
        assert set(after) == set(before)
        assert (
            after[str(model_dir / "metrics.jsonl")]
            == before[str(model_dir / "metrics.jsonl")]
        )


def test_evaluate_says_what_it_passes_over(
    model_dir: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    truncate_data(prefix_of(model_dir, 8))
    assert cli.main(["evaluate", f"--model_dir={model_dir}"]) == 0
    shown = capsys.readouterr()
    assert f"warning: skipped {prefix_of(model_dir, 8)}: unreadable" in shown.err
    assert "step 6: accuracy" in shown.out
    assert not (model_dir / "quarantine").exists()  # An evaluation moves no files.


# Jobs of two ranks.  Only rank 0 reads the checkpoints.


def words(data_dir: str, folder: pathlib.Path) -> List[str]:
    train = {**TRAINING, "steps": 10, "save_every_secs": 0}
    return train_words(tiny.config(data={"path": data_dir}, train=train), folder)


def test_two_ranks_go_on_from_the_same_step(
    model_dir: pathlib.Path,
    data_dir: str,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture,
) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    truncate_data(prefix_of(model_dir, 8))
    weights_dir = tmp_path / "weights"
    weights_dir.mkdir()
    run_words = words(data_dir, tmp_path)
    assert run_ranks(2, run_words, model_dir, weights_dir) == 0
    first, second = (dict(np.load(str(weights_dir / f"{r}.npz"))) for r in (0, 1))
    assert first["global_step"] == second["global_step"] == 10
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes(), name
    shown = capfd.readouterr()
    assert f"warning: damaged, moved to quarantine/: {prefix_of(model_dir, 8)}" in (
        shown.out + shown.err
    )
    assert metrics(model_dir, "start")[1]["step"] == 6
    assert len(metrics(model_dir, "quarantine")) == 1


def test_two_ranks_end_where_no_checkpoint_is_valid(
    model_dir: pathlib.Path,
    data_dir: str,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture,
) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    damage_all(model_dir)
    run_words = words(data_dir, tmp_path)
    assert run_ranks(2, run_words, model_dir) == 3
    shown = capfd.readouterr()
    assert "has no valid checkpoint" in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
    assert len(metrics(model_dir, "start")) == 1
