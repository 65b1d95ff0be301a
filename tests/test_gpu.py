"""NVIDIA's GPUs, as far as they can be tested without one: each rank has one GPU."""

import importlib.util
import sys
import types
from typing import Any, Dict, List

import pytest

from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch import BACKENDS, Group
from alexnet_estimator.rank_environment import GPU, read_gpu
from alexnet_estimator.rank_table import Device, Topology
from alexnet_estimator.runtime.base import session_config
from tests import tiny

SERVER = "127.0.0.1"


@pytest.fixture
def gpu_ids(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Return the numbers of the GPUs that TensorFlow would see."""
    names = ["0", "1", "2", "3"]
    config = types.SimpleNamespace(list_physical_devices=lambda kind: names)
    monkeypatch.setattr(tf.config, "experimental", config)
    return names


def test_memory_grows_instead_of_being_taken_at_once() -> None:
    session = session_config(0, "gpu")
    assert session.gpu_options.allow_growth
    assert "GPU" not in session.device_count
    assert session_config(0, "cpu").device_count["GPU"] == 0


def test_the_launcher_gives_each_rank_the_device_of_the_table() -> None:
    devices = [Device(rank, 3 - rank, "", SERVER) for rank in range(2)]
    topology = Topology(tuple(devices), "1.0", "")
    with BACKENDS["horovod"].describe_ranks(Group(topology, SERVER, {}, "")) as ranks:
        assert [rank[GPU] for rank in ranks] == ["3", "2"]


@pytest.mark.parametrize(
    "environ, expected", [({}, 1), ({GPU: ""}, 1), ({GPU: "3"}, 3)]
)
def test_without_our_launcher_the_local_rank_counts(
    environ: Dict[str, str], expected: int
) -> None:
    assert read_gpu(environ, local_rank=1) == expected


def make_session_options(monkeypatch: pytest.MonkeyPatch, gpu: str) -> Any:
    """Return the GPU options of the Estimator of a rank that runs on a GPU."""
    # A process that has loaded ONNX for another test crashes when it loads Horovod.
    package, hvd = types.ModuleType("horovod"), types.ModuleType("horovod.tensorflow")
    setattr(package, "tensorflow", hvd)
    setattr(hvd, "local_rank", lambda: 0)
    for module in (package, hvd):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec: Any = importlib.util.find_spec("alexnet_estimator.runtime.horovod")
    horovod: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(horovod)
    monkeypatch.setenv(GPU, gpu)
    runtime = horovod.HorovodRuntime.__new__(horovod.HorovodRuntime)
    runtime.device, runtime.rank = "gpu", 0
    estimator = runtime.make_estimator(lambda features: None, "/run", tiny.config())
    return estimator.config.session_config.gpu_options


def test_a_session_sees_the_gpu_of_its_rank_only(
    monkeypatch: pytest.MonkeyPatch, gpu_ids: List[str]
) -> None:
    options = make_session_options(monkeypatch, "2")
    assert options.visible_device_list == "2" and options.allow_growth


def test_a_table_with_more_devices_than_gpus_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpu_ids: List[str]
) -> None:
    with pytest.raises(
        ConfigError, match="GPU 4, but TensorFlow sees only 4 .*device_id"
    ):
        make_session_options(monkeypatch, "4")
