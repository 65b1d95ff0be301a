"""The launcher runs whole jobs of several ranks on the stand-in for npu_bridge."""

import csv
import json
import pathlib
import re
import sys
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator import launch, rank_table
from alexnet_estimator.errors import EXIT_DONE, EXIT_USAGE
from alexnet_estimator.launch import job
from tests import npu_double, pictures, tiny
from tests.training import evaluation, metrics, variables

SERVER = "127.0.0.1"
CLUSTER = {"CM_CHIEF_IP": SERVER, "CM_CHIEF_PORT": "2222", "CM_WORKER_SIZE": "4"}


@pytest.fixture
def server(tmp_path: pathlib.Path, monkeypatch: Any) -> Iterator[pathlib.Path]:
    """Return a folder that looks like that of a server with two NPUs."""
    npu_double.load(monkeypatch, npu_double.NEW)
    for name in ("davinci0", "davinci1", "version.info"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    folders = (npu_double.DOUBLES, str(npu_double.HERE.parent))
    monkeypatch.setenv("PYTHONPATH", ":".join(folders))
    command = (sys.executable, "-m", "tests.programs.npu_rank")
    monkeypatch.setattr(job, "COMMAND", command)
    with npu_double.looking_like_a_server(str(tmp_path)):
        yield tmp_path
    npu_double.forget()


def train_words(data_dir: str, folder: pathlib.Path, **changes: Any) -> List[str]:
    """Return a command line that trains on NPUs without dropout, which is random."""
    config = tiny.config(
        data={"path": data_dir},
        model={"width_multiplier": 1 / 16, "keep_prob": 1.0},
        runtime={"device": "npu"},
        # The CPU whose answers are compared would otherwise use float16.
        precision={"mode": "must_keep_origin_dtype", "loss_scale": "dynamic"},
        train={"eval_every_epochs": 0.0, "log_every_steps": 2, **changes},
        npu={"iterations_per_loop": 2},
    )
    path = folder / f"{changes['steps']}.json"
    path.write_text(json.dumps({"config": config.to_dict()}))
    return ["train", f"--config={path}"]


def run_ranks(num_ranks: int, words: List[str], folder: pathlib.Path) -> int:
    table = npu_double.write_table(folder / f"{num_ranks}p.json", num_ranks, SERVER)
    topology = rank_table.read(table)
    return launch.run(words, topology, SERVER, "npu", str(folder / "logs"))


def test_four_ranks_count_as_one_does(
    data_dir: str, server: pathlib.Path, monkeypatch: Any
) -> None:
    """Rank 3 overflows, and the variables of ascend-operator are set as well."""
    monkeypatch.setenv("NPU_DOUBLE_OVERFLOW", "3:2")
    for name, value in CLUSTER.items():
        monkeypatch.setenv(name, value)
    words = train_words(data_dir, server, steps=2, batch_size_per_rank=2)
    assert run_ranks(4, [*words, "--model_dir=run"], server) == EXIT_DONE
    for name in CLUSTER:
        monkeypatch.delenv(name)
    # One of the first two steps is skipped, and a loop has two.
    [record] = [r for r in metrics("run", "train") if r["step"] == 3]
    assert record["num_skipped_steps"] == 1
    of_four = evaluation("run", 3)
    assert of_four["num_images"] == np.sum(of_four["confusion_matrix"]) == 11
    for device in ("npu", "cpu"):
        words = ["evaluate", "--model_dir=run", f"--device={device}"]
        assert cli.main(words) == EXIT_DONE
        alone = evaluation("run", 3)
        assert alone.pop("loss") == pytest.approx(of_four["loss"], rel=1e-5)
        assert alone == {k: v for k, v in of_four.items() if k != "loss"}


def test_two_ranks_resume_to_the_same_weights(
    data_dir: str, server: pathlib.Path
) -> None:
    whole = train_words(data_dir, server, steps=4)
    half = train_words(data_dir, server, steps=2)
    words = [*whole, "--model_dir=whole", "then", *half, "--model_dir=parts", "then"]
    assert run_ranks(2, [*words, *whole, "--model_dir=parts"], server) == EXIT_DONE
    starts = [record["step"] for record in metrics("parts", "start")]
    assert starts == [0, 2]
    expected, resumed = variables("whole"), variables("parts")
    assert set(expected) == set(resumed) and expected["global_step"] == 4
    for name, value in expected.items():
        assert np.array_equal(resumed[name], value), name
    middle = variables("parts", 2)
    assert any((middle[n] != expected[n]).any() for n in middle if "kernel" in n)
    predict(server)


def predict(folder: pathlib.Path) -> None:
    """Check that an NPU predicts what a CPU does."""
    source = pictures.make_folder(folder / "new", ("a",), 3, (80, 72))
    answers: Dict[str, List[List[str]]] = {}
    for device in ("npu", "cpu"):
        words = ["predict", source, "--model_dir=whole", f"--device={device}"]
        assert cli.main([*words, f"--output={device}.csv"]) == EXIT_DONE
        with open(f"{device}.csv", newline="") as file:
            answers[device] = list(csv.reader(file))
    assert len(answers["cpu"]) == len(answers["npu"]) == 1 + 3
    for cpu, npu in zip(answers["cpu"], answers["npu"]):
        assert cpu[:2] == npu[:2]
        if cpu[2] != npu[2]:
            # An NPU's session has other threads and rewrites, so MKL may sum otherwise.
            assert float(cpu[2]) == pytest.approx(float(npu[2]), abs=2e-6)


def test_the_doctor_compares_the_weights_of_ranks(
    server: pathlib.Path, monkeypatch: Any, capfd: pytest.CaptureFixture
) -> None:
    table = npu_double.write_table(server / "2p.json", 2, SERVER)
    words = ["doctor", "--device=npu", f"--rank_table={table}", "--output=found.json"]
    assert cli.main(words) == EXIT_DONE
    report = json.loads((server / "found.json").read_text())
    states = {found["name"]: found["state"] for found in report["findings"]}
    assert {"devices", "hccn.conf", "loss", "overflow"} <= set(states)
    assert "failure" not in states.values()
    shown = capfd.readouterr().out
    assert re.search("weights of all ranks +2 equal", shown)
    assert "5120 of 5120 images" in shown
    # A rank does not show the findings of the launcher again.
    assert shown.count("interpreter") == shown.count("overflow") == 1

    monkeypatch.setenv("NPU_DOUBLE_WRONG", "1")
    assert cli.main(words) == EXIT_USAGE
    report = json.loads((server / "found.json").read_text())
    failed = {f["name"]: f["seen"] for f in report["findings"] if f["state"] != "ok"}
    assert failed["weights of all ranks"] == "ranks [1] differ from rank 0"
