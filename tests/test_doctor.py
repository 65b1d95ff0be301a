"""The doctor examines a machine, and its self-test finds the faults of a device."""

import json
import os
import pathlib
from typing import Any, Dict, List
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import __main__ as cli
from alexnet_estimator.finding import Finding, require
from alexnet_estimator.jobs.doctor import job, machine, self_test
from alexnet_estimator.jobs.doctor.self_test import run_self_test
from alexnet_estimator.rank_table import Device, Topology
from alexnet_estimator.runtime import npu_checks
from tests import npu_double

TESTED = ("loss", "dropout", "LRN", "weights of all ranks", "counts of evaluation")


def states(findings: List[Finding]) -> Dict[str, str]:
    return {finding.name: finding.state for finding in findings}


def test_a_machine_that_can_train(
    tmp_path: pathlib.Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert cli.main(["doctor", "--device=cpu", "--output=found.json"]) == 0
    report = json.loads((tmp_path / "found.json").read_text())
    found = {f["name"]: f["state"] for f in report["findings"]}
    assert found["device"] == found["interpreter"] == "ok"
    assert [found[name] for name in (*TESTED, "overflow")] == ["ok"] * 6
    shown = capsys.readouterr().out
    assert "2560 of 2560 images" in shown and "3 of 3 steps skipped" in shown
    assert os.listdir(str(tmp_path)) == ["found.json"]


def test_each_line_of_a_bad_machine_has_a_remedy(monkeypatch: Any) -> None:
    monkeypatch.chdir("/proc")
    monkeypatch.setattr(machine, "DISK_MIB", 1 << 40)
    monkeypatch.setattr(machine, "MEMORY_MIB_PER_RANK", 1 << 40)
    monkeypatch.setattr(machine, "num_cores", lambda: 0)
    monkeypatch.setattr(machine.time, "time", lambda: 0.0)
    monkeypatch.setattr(machine.sys, "version_info", (3, 12))
    with machine.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        findings = machine.examine_machine(None, taken.getsockname()[1])
    found = states(findings)
    assert {name for name in found if found[name] == "failure"} >= {
        "working folder",
        "ports",
    }
    warned = {name for name in found if found[name] == "warning"}
    assert warned == {"disk", "memory", "cores", "clock"}
    assert all(f.remedy for f in findings if f.state != "ok")
    [left_out] = job.try_out("cpu", findings)
    assert left_out.seen == "left out"


def test_an_npus_surroundings(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    class NPURunConfig:
        def __init__(self, precision_mode_v2: Any = None):
            pass

    found = states(npu_checks.examine_npu({}, None, lambda: NPURunConfig))
    assert found.pop("npu_bridge") == "ok"
    assert found.pop("npu-smi") == "warning"
    assert set(found.values()) == {"failure"} and len(found) == 3
    script, version = tmp_path / "set_env.sh", tmp_path / "version.info"
    script.write_text("")
    version.write_text("Version=20.1\n")
    (tmp_path / "davinci0").write_text("")
    monkeypatch.setattr(npu_checks, "SET_ENV_SCRIPTS", ("/no", str(script)))
    monkeypatch.setattr(npu_checks, "DRIVER_VERSION", str(version))
    monkeypatch.setattr(npu_checks, "DEVICES", str(tmp_path / "davinci*"))
    monkeypatch.setattr(npu_checks, "CONTROL_DEVICES", (str(version),))
    findings = npu_checks.examine_npu({}, None, lambda: NPURunConfig)
    [cann] = [finding for finding in findings if finding.name == "CANN"]
    assert str(script) in cann.remedy
    environ = {"ASCEND_HOME_PATH": str(tmp_path)}

    def fail() -> type:
        raise ImportError("libge.so: no such file")

    findings = npu_checks.examine_npu(environ, None, fail)
    bad = {f.name: f.seen for f in findings if f.state == "failure"}
    assert bad == {"npu_bridge": "libge.so: no such file"}


def test_only_addresses_that_a_table_has_are_compared(monkeypatch: Any) -> None:
    addresses = {"own": "10.0.0.1", "unknown": "", "another": "10.0.0.9"}
    monkeypatch.setattr(npu_checks, "local_device_ips", lambda count: ["10.0.0.1"])
    found = {}
    for name, address in addresses.items():
        device = Device(0, 0, address, "127.0.0.1")
        topology = Topology((device,), "1.0", "")
        found[name] = npu_checks._examine_network(topology, [device])
    assert {name: finding.state for name, finding in found.items()} == {
        "own": "ok",
        "unknown": "ok",
        "another": "failure",
    }
    assert "device 0 has 10.0.0.1, the rank table has 10.0.0.9" in found["another"].seen


class Fault:
    """A fault of a device, by the line that must find it."""

    @staticmethod
    def dropout(monkeypatch: Any, npu_ops: Any) -> None:
        mask = np.float32(np.random.RandomState(0).rand(64, 64) < 0.5) * 2

        def same(x: tf.Tensor, *_: Any, **__: Any) -> tf.Tensor:
            return x * mask if x.shape == mask.shape else x

        monkeypatch.setattr(npu_ops, "dropout", same)

    @staticmethod
    def LRN(monkeypatch: Any, npu_ops: Any) -> None:
        lrn = tf.nn.lrn

        def lowered(x: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
            return lrn(tf.minimum(x, 256.0), *args, **kwargs)

        monkeypatch.setattr(tf.nn, "lrn", lowered)

    @staticmethod
    def overflow(monkeypatch: Any, npu_ops: Any) -> None:
        from npu_bridge import device

        blind = lambda *gradients: np.zeros([1], np.float32)  # noqa: E731
        monkeypatch.setattr(device, "read_overflow", blind)


def test_the_self_test_finds_what_a_device_does_wrong(monkeypatch: Any) -> None:
    """tests/test_npu_jobs.py tests a device without faults."""
    npu_double.load(monkeypatch, npu_double.NEW)
    from npu_bridge.estimator import npu_ops

    faults = ["dropout", "LRN", "overflow"]
    for fault in faults:
        getattr(Fault, fault)(monkeypatch, npu_ops)
    try:
        findings = run_self_test("npu")
    finally:
        npu_double.forget()
    found = states(findings)
    assert [name for name in found if found[name] == "failure"] == faults


def test_counts_and_weights_that_are_wrong_are_found(monkeypatch: Any) -> None:
    from alexnet_estimator import model_fn
    from alexnet_estimator.runtime.local import LocalRuntime

    sums = model_fn.batch_sums

    def lowered(*tensors: tf.Tensor) -> Dict[str, tf.Tensor]:
        found = sums(*tensors)
        found["num_top_5"] -= 1
        return found

    monkeypatch.setattr(model_fn, "batch_sums", lowered)
    gather = LocalRuntime.gather

    def differ(self: Any, values: Any) -> np.ndarray:
        rows = gather(self, values)
        return np.concatenate([rows, rows + 1]) if len(values) == 2 else rows

    monkeypatch.setattr(LocalRuntime, "gather", differ)
    monkeypatch.setattr("alexnet_estimator.jobs.doctor.self_test.NUM_STEPS", 4)
    findings = run_self_test("cpu")
    bad = {f.name: f.seen for f in findings if f.state == "failure"}
    assert {"counts of evaluation", "weights of all ranks"} <= set(bad)
    assert bad["weights of all ranks"] == "ranks [1] differ from rank 0"


def test_a_failure_of_another_rank_is_one_of_all() -> None:
    runtime = mock.Mock()
    runtime.gather.side_effect = lambda own: np.array([own, [0, 1]])
    findings = [require("loss", True, "", ""), require("LRN", True, "", "")]
    of_rank_0 = self_test._join_findings(runtime, findings)
    assert states(of_rank_0) == {"loss": "ok", "LRN": "failure"}
    assert of_rank_0[1].seen == "fails on ranks [1]: see their logs"


def test_whatever_a_device_raises_is_a_finding(monkeypatch: Any) -> None:
    def fail(device: str) -> Any:
        raise RuntimeError("EI0006: Getting socket times out\nand more")

    monkeypatch.setattr("alexnet_estimator.jobs.doctor.self_test.run_self_test", fail)
    [finding] = job.try_out("cpu", [])
    assert finding.state == "failure"
    assert finding.seen == "RuntimeError: EI0006: Getting socket times out"
    assert job.has_failed([finding]) and "-> see docs" in job.to_text([finding])
