"""Every subcommand works with a run of version 1.0 (61a2226).

It was made with ``--config.model.width_multiplier=0.02 --config.model.fc6_units=200
--config.model.fc7_units=200 --batch_size=4 --train_steps=4`` of ``configs/tiny.py``.
"""

import json
import pathlib
import shutil
from typing import List

import numpy as np
import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator.errors import EXIT_DONE
from tests import training

OLD = pathlib.Path(__file__).parent / "old_run"


@pytest.fixture
def words(tmp_path: pathlib.Path) -> List[str]:
    """Return the flags that name a copy of the run and of its data."""
    shutil.copytree(str(OLD), str(tmp_path / "old"))
    data = f"--data_path={tmp_path / 'old' / 'data'}"
    return [f"--model_dir={tmp_path / 'old' / 'run'}", data]


def test_it_is_evaluated_as_then(words: List[str], tmp_path: pathlib.Path) -> None:
    run = tmp_path / "old" / "run"
    then = json.loads((run / "eval" / "4.json").read_text())
    (run / "eval" / "4.json").unlink()
    assert cli.main(["evaluate", *words]) == EXIT_DONE
    now = training.evaluation(run, 4)
    assert now["confusion_matrix"] == then["confusion_matrix"]
    assert now["class_names"] == then["class_names"] == ["apple", "ocean"]
    np.testing.assert_allclose(now["loss"], then["loss"], rtol=1e-4)


def test_it_is_resumed_and_reported(words: List[str], tmp_path: pathlib.Path) -> None:
    run = tmp_path / "old" / "run"
    before = training.variables(run, 4)
    assert cli.main(["train", *words, "--train_steps=6"]) == EXIT_DONE
    starts = training.metrics(run, "start")
    assert [start["step"] for start in starts] == [0, 4]
    assert "train.steps: 4 -> 6" in starts[1]["changes"]
    after = training.variables(run, 6)
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in before.items()
    }
    assert after["global_step"] == 6
    (run / "report.html").unlink()
    assert cli.main(["report", str(run)]) == EXIT_DONE
    assert "ocean" in (run / "report.html").read_text()


def test_it_predicts_and_is_exported(words: List[str], tmp_path: pathlib.Path) -> None:
    exported = str(tmp_path / "exported")
    assert cli.main(["export", *words, f"--output={exported}"]) == EXIT_DONE
    picture = tmp_path / "picture.png"
    picture.write_bytes(training.tiny.encode(training.tiny.noise(0)))
    rows = {}
    for model_dir in (words[0], f"--model_dir={exported}"):
        output = tmp_path / "rows.csv"
        code = cli.main(["predict", model_dir, str(picture), f"--output={output}"])
        assert code == EXIT_DONE
        rows[model_dir] = output.read_text().splitlines()
    first, second = (lines[1].split(",") for lines in rows.values())
    assert first[1] == second[1] and first[1] in ("apple", "ocean")
    assert abs(float(first[2]) - float(second[2])) < 1e-4
