"""The NPU runtime, on the stand-in ``doubles/npu_bridge``.

Run as a program, this file is one rank of ``test_ranks_train_as_one``.
"""

import ast
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any, Dict, Iterator, List
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import engine
from alexnet_estimator.config import Config, config_from, validate
from alexnet_estimator.errors import ConfigError, RankError
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.runtime import make_runtime, npu, npu_options
from alexnet_estimator.runtime.base import Runtime
from alexnet_estimator.runtime.npu_environment import read_rank
from alexnet_estimator.runtime.npu_runtime import NpuRuntime
from tests import npu_double, tiny
from tests.npu_double import NEW, OLD, clean_environment, rank_environment, write_table

PYTHONPATH = os.pathsep.join([npu_double.DOUBLES, str(npu_double.HERE.parent)])
LEARNING_RATE = 0.25
BATCH_SIZE = 2
RUN = tf.Session.run


def make_config(**sections: Dict[str, Any]) -> Config:
    config = config_from({"runtime": {"device": "npu"}, **sections})
    validate(config)
    if config.precision.mode == "auto":
        config.precision.mode = "allow_mix_precision"
    return config


@pytest.fixture(params=[OLD, NEW])
def release(request: Any, monkeypatch: Any) -> Iterator[str]:
    """Load each release of the stand-in in this process, on one device."""
    npu_double.load(monkeypatch, request.param)
    yield request.param
    npu_double.forget()


class Recorder(tf.train.SessionRunHook):
    """Records what hooks see, and saves at the end on rank 0 like ``SaveHook``."""

    def __init__(self, variables: List[tf.Tensor], model_dir: str, is_chief: bool):
        self._variables, self._model_dir = variables, model_dir
        self._is_chief = is_chief
        self.steps: List[int] = []
        self.last: List[Any] = []

    def begin(self) -> None:
        self._step = tf.train.get_global_step()
        self._saver = tf.train.Saver()

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self.steps.append(int(run_context.session.run(self._step)))

    def end(self, session: tf.Session) -> None:
        self.last = [v.tolist() for v in session.run(self._variables)]
        if self._is_chief:
            path = os.path.join(self._model_dir, "model.ckpt")
            self._saver.save(session, path, global_step=self._step)


def train_rank(model_dir: str, changes: Dict[str, Any], max_steps: List[int]) -> Any:
    """Train in stages, evaluate, and return the values that this rank recorded."""
    config = make_config(**changes)
    runtime = make_runtime(config)
    recorders: List[Recorder] = []

    def model_fn(features: tf.Tensor, labels: tf.Tensor, mode: str) -> Any:
        start = tf.constant_initializer(runtime.rank + 1.0)
        weight = tf.get_variable("weight", [3], initializer=start)
        hidden = runtime.dropout(features, 0.5, tf.stack([runtime.rank, 0]))
        loss = tf.reduce_sum(weight * tf.reduce_mean(features, axis=0))
        if mode == tf.estimator.ModeKeys.EVAL:
            total = runtime.all_reduce_sum(tf.constant([runtime.rank + 1.0]))
            metrics = {"total": (total, tf.no_op())}
            return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)
        optimizer = tf.train.GradientDescentOptimizer(LEARNING_RATE)
        scaled = runtime.wrap_optimizer(optimizer, config.precision)
        step = tf.train.get_global_step()
        gradients = scaled.optimizer.compute_gradients(loss)
        train_op = scaled.optimizer.apply_gradients(gradients, global_step=step)
        seen = [weight, scaled.num_skipped, scaled.scale, tf.shape(hidden)]
        recorders.append(Recorder(seen, model_dir, runtime.is_chief))
        return tf.estimator.EstimatorSpec(
            mode,
            loss=loss,
            train_op=train_op,
            training_hooks=runtime.start_hooks() + [recorders[-1]],
        )

    def input_fn() -> tf.data.Dataset:
        rows = tf.data.Dataset.range(100).map(
            lambda n: tf.fill([BATCH_SIZE, 3], tf.cast(n, tf.float32) + runtime.rank)
        )
        return rows.map(lambda x: (x, tf.zeros([BATCH_SIZE])))

    result: Dict[str, Any] = {
        "gathered": runtime.gather([0.1 + runtime.rank, 2.0**53 - 1, -7]).tolist(),
        "num_calls": count_gathers(runtime, [64, 65, 75_000]),
        "of_chief": runtime.of_chief(runtime.rank + 5),
    }
    runtime.agree_on([123456, 0.1], "numbers")
    if runtime.num_ranks > 1:
        with pytest.raises(RankError, match="disagree on a rank"):
            runtime.agree_on([0, runtime.rank], "a rank")
    for steps in max_steps:
        estimator = runtime.make_estimator(model_fn, model_dir, config)
        estimator.train(input_fn, max_steps=steps)
        runtime.gather([0.0])
    evaluator = runtime.make_estimator(model_fn, model_dir, config)
    result["total"] = evaluator.evaluate(input_fn, steps=1)["total"].tolist()
    result["steps"] = [recorder.steps for recorder in recorders]
    result["last"] = [recorder.last for recorder in recorders]
    result["gradient_split"] = sys.modules["npu_bridge.device"].gradient_split
    return result


def count_gathers(runtime: Runtime, lengths: List[int]) -> Dict[str, int]:
    """Gather lists of numbers; return how many calls of HCCL each of them takes."""
    num_calls = {}
    with mock.patch.object(tf.Session, "run", autospec=True, side_effect=RUN) as run:
        for length in lengths:
            run.reset_mock()
            rows = runtime.gather(np.arange(length) + runtime.rank / 2)
            expected = [np.arange(length) + rank / 2 for rank in range(len(rows))]
            assert np.array_equal(rows, expected)
            num_calls[str(length)] = run.call_count
    return num_calls


def run_ranks(num_ranks: int, environment: Dict[str, str], arguments: Any) -> Any:
    """Start the ranks, wait for all, return their results in order."""
    model_dir = pathlib.Path(arguments[0])
    table = write_table(model_dir.parent / "table.json", num_ranks)
    processes = []
    for rank in range(num_ranks):
        own = rank_environment(table, rank, num_ranks) if num_ranks > 1 else {}
        own["PYTHONPATH"] = PYTHONPATH
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, repr(arguments)],
                env={**clean_environment(), **own, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                universal_newlines=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs):
        assert process.returncode == 0, errors[-4000:]
    return [json.loads(text.splitlines()[-1]) for text, _ in outputs]


def oracle(num_ranks: int, attempts: List[int], start: float = 1.0) -> float:
    """Return every element of the weight after gradient descent on these batches."""
    means = [n + (num_ranks - 1) / 2 for n in attempts]
    return start - LEARNING_RATE * sum(means)


@npu_double.needs_1_15
@pytest.mark.parametrize("version", [OLD, NEW])
def test_ranks_train_as_one(version: str, tmp_path: pathlib.Path) -> None:
    changes = {
        "npu": {"iterations_per_loop": 2, "gradient_split": (60, 19, 21)},
        "precision": {"initial_loss_scale": 8.0},
    }
    environment = {"NPU_DOUBLE_RELEASE": version, "NPU_DOUBLE_OVERFLOW": "1:2"}
    results = run_ranks(2, environment, [str(tmp_path / "model"), changes, [4, 8]])

    # Rank 1 overflows in its second step, which both skip; the loop continues.
    for result in results:
        assert result["steps"] == [[1, 3, 5], [7, 9]]
        weight, num_skipped, scale, hidden_shape = result["last"][0]
        first = oracle(2, [0, 2, 3, 4, 5])
        assert weight == pytest.approx([first] * 3)
        assert (num_skipped, scale) == (1, 4.0)
        assert hidden_shape == [BATCH_SIZE, 3]
        # The second stage is a new session from rank 0's checkpoint.
        weight, num_skipped, scale, _ = result["last"][1]
        assert weight == pytest.approx([oracle(2, [0, 1, 2, 3], first)] * 3)
        assert (num_skipped, scale) == (1, 4.0)
        rows = [[0.1 + rank, 2.0**53 - 1, -7] for rank in (0, 1)]
        assert result["gathered"] == rows and result["of_chief"] == 5
        # Half of ImageNet's validation split as (label, answer, 1).
        assert result["num_calls"] == {"64": 1, "65": 1, "75000": 2}
        assert result["total"] == [3.0]
        assert result["gradient_split"] == [60, 19, 21]
    assert results[0]["last"] == results[1]["last"]


@npu_double.needs_1_15
def test_one_rank_needs_no_environment(tmp_path: pathlib.Path) -> None:
    changes = {"precision": {"loss_scale": "1024"}}
    # The old release fails if RANK_SIZE is not set.
    environment = {"NPU_DOUBLE_RELEASE": OLD, "NPU_DOUBLE_OVERFLOW": "0:1"}
    arguments = [str(tmp_path / "model"), changes, [3]]
    [result] = run_ranks(1, environment, arguments)
    assert result["steps"] == [[0, 1, 2, 3]]
    weight, num_skipped, scale, _ = result["last"][0]
    assert weight == pytest.approx([oracle(1, [1, 2, 3])] * 3)
    assert (num_skipped, scale) == (1, 1024.0)
    assert result["total"] == [1.0]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_cpu_never_imports_npu_bridge(device: str) -> None:
    program = (
        "import sys\n"
        "from alexnet_estimator.config import config_from\n"
        "from alexnet_estimator.runtime import make_runtime\n"
        f"config = config_from({{'runtime': {{'device': '{device}'}}}})\n"
        "assert make_runtime(config).device != 'npu'\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in "
        "('npu_bridge', 'hccl')]\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={**clean_environment(), "PYTHONPATH": PYTHONPATH},
        check=True,
    )


def test_auto_needs_devices_and_npu_bridge(monkeypatch: Any) -> None:
    found = {"devices": ["/dev/davinci0"], "npu_bridge": object()}
    monkeypatch.setattr(npu.glob, "glob", lambda pattern: found["devices"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found.get(name, None))
    monkeypatch.setattr(engine, "is_1_15", lambda: True)
    assert npu.Npu().is_present()
    found["devices"] = []
    assert not npu.Npu().is_present()
    found.update(devices=["/dev/davinci0"], npu_bridge=None)
    assert not npu.Npu().is_present()


def test_missing_npu_bridge_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "npu_bridge", None)
    with pytest.raises(ConfigError) as caught:
        NpuRuntime(make_config(), {})
    message = str(caught.value)
    for word in ("npu_bridge", "Ascend Hub", "CANN", "set_env.sh", "--device=cpu"):
        assert word in message


def test_environment_of_each_rank_is_read(tmp_path: pathlib.Path) -> None:
    table = write_table(tmp_path / "table.json", 4)
    for rank in range(4):
        assert read_rank(rank_environment(table, rank, 4)) == (rank, 4)
    assert read_rank({}) == (0, 1)
    for secs in ("120", "7200"):  # The limits of HCCL are allowed themselves.
        assert read_rank({"HCCL_CONNECT_TIMEOUT": secs}) == (0, 1)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"RANK_ID": "npu8p"}, "RANK_ID is 'npu8p': must be a whole number"),
        ({"RANK_ID": "4"}, "RANK_ID is 4: must be below RANK_SIZE = 4"),
        ({"RANK_ID": None}, "RANK_ID is not set"),
        ({"JOB_ID": None}, "JOB_ID is not set"),
        ({"RANK_SIZE": "2"}, "RANK_SIZE is 2, but"),
        ({"RANK_SIZE": None}, "has 4 ranks"),
        ({"RANK_TABLE_FILE": None}, "RANK_SIZE is 4 without RANK_TABLE_FILE"),
        ({"RANK_TABLE_FILE": "table.json"}, "must be an absolute path"),
        ({"RANK_TABLE_FILE": "/no/such.json"}, "/no/such.json: no such file"),
        ({"ASCEND_DEVICE_ID": "3"}, "ASCEND_DEVICE_ID is 3, but rank 1 of"),
        ({"ASCEND_DEVICE_ID": None}, "ASCEND_DEVICE_ID is not set"),
        ({"POD_NAME": "npu8p"}, "POD_NAME is npu8p"),
        ({"RESTORE_FROM": "/old"}, "RESTORE_FROM is /old"),
        ({"LOCAL_CHECKPOINT_DIR": "/old"}, "LOCAL_CHECKPOINT_DIR is /old"),
        ({"HCCL_CONNECT_TIMEOUT": "119"}, "HCCL_CONNECT_TIMEOUT is 119"),
        ({"HCCL_CONNECT_TIMEOUT": "7201"}, "HCCL_CONNECT_TIMEOUT is 7201"),
    ],
)
def test_wrong_environment_gives_its_message(
    changes: Dict[str, Any], words: str, tmp_path: pathlib.Path
) -> None:
    table = write_table(tmp_path / "table.json", 4)
    environ = {**rank_environment(table, 1, 4), **changes}
    environ = {name: value for name, value in environ.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        read_rank(environ)
    assert any(words in problem for problem in caught.value.problems), caught.value


def test_all_problems_are_told_at_once(tmp_path: pathlib.Path) -> None:
    table = write_table(tmp_path / "table.json", 4)
    environ = rank_environment(table, 1, 2)
    del environ["JOB_ID"]
    environ.update(ASCEND_DEVICE_ID="3", RESTORE_FROM="/old")
    with pytest.raises(ConfigError) as caught:
        read_rank(environ)
    assert len(caught.value.problems) == 4


def test_devices_that_a_container_renumbers_are_left_alone(
    tmp_path: pathlib.Path,
) -> None:
    environ = rank_environment(write_table(tmp_path / "table.json", 4), 2, 4)
    environ.update(ASCEND_DEVICE_ID="0", ASCEND_VISIBLE_DEVICES="2,3")
    assert read_rank(environ) == (2, 4)


def test_a_table_is_taken_in_place_of_the_operators_variables(
    release: str, tmp_path: pathlib.Path
) -> None:
    """ascend-operator sets CM_* in addition to the table; HCCL refuses both."""
    cluster = {"CM_CHIEF_IP": "10.0.0.1", "CM_CHIEF_PORT": "2222", "CM_RANK": "0"}
    cluster["CM_WORKER_SIZE"] = "4"
    table = write_table(tmp_path / "table.json", 4)
    environ = {**rank_environment(table, 1, 4), **cluster}
    assert NpuRuntime(make_config(), environ).num_ranks == 4
    assert environ == rank_environment(table, 1, 4)
    with pytest.raises(ConfigError) as caught:
        NpuRuntime(make_config(), dict(cluster))
    message = str(caught.value)
    for word in (*cluster, "rank table", "hccl.json", "--rank_table=FILE"):
        assert word in message
    cluster["CM_WORKER_SIZE"] = "1"  # A pod that trains alone.
    assert NpuRuntime(make_config(), cluster).num_ranks == 1
    assert not cluster


def test_a_working_folder_that_cannot_be_written_to_is_named(
    release: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir("/proc")
    with pytest.raises(ConfigError, match="working folder /proc .*kernel_meta"):
        NpuRuntime(make_config(), {})


def parameter_map(config: Config) -> Dict[str, Any]:
    """Return the options that the Estimator passes to the device."""
    estimator = NpuRuntime(config, {}).make_estimator(_no_model, "/m", config)
    rewrite = estimator.config.session_config.graph_options.rewrite_options
    [optimizer] = rewrite.custom_optimizers
    values = {}
    for name, value in optimizer.parameter_map.items():
        values[name] = getattr(value, value.WhichOneof("value"))
    return values


def _no_model(features: Any) -> None:
    raise AssertionError("not called")


def test_options_reach_the_device(release: str) -> None:
    settings = {
        "iterations_per_loop": 10,
        "hcom_parallel": "on",
        "high_precision_ops": ("LRN", "SoftmaxV2"),
    }
    values = parameter_map(make_config(npu=settings))
    assert values["iterations_per_loop"] == 10
    assert values["hcom_parallel"] is True
    assert values["precision_mode"] == b"allow_mix_precision"
    assert values["op_select_implmode"] == b"high_precision"
    assert values["optypelist_for_implmode"] == b"LRN,SoftmaxV2"


def test_unset_options_are_left_to_the_release(release: str) -> None:
    # Its default changed in 2023.
    assert parameter_map(make_config())["hcom_parallel"] is (release == NEW)
    off = make_config(npu={"hcom_parallel": "off"})
    assert parameter_map(off)["hcom_parallel"] is False


def test_unknown_options_are_dropped_with_a_warning(
    release: str, capsys: pytest.CaptureFixture
) -> None:
    settings = {
        "hccl_timeout_secs": 680,
        "auto_tune_mode": "RL,GA",
        "deterministic": "on",
        "profiling_options": '{"output": "/profile"}',
    }
    values = parameter_map(make_config(npu=settings))
    new = {"hccl_timeout", "deterministic", "profiling_options"}
    dropped = new if release == OLD else {"auto_tune_mode"}
    warnings = capsys.readouterr().err
    assert set(re.findall(r"npu_bridge has no option (\w+):", warnings)) == dropped
    assert values.get("hccl_timeout") == (None if release == OLD else 680)
    assert values.get("auto_tune_mode") == (b"RL,GA" if release == OLD else None)


def test_each_estimator_has_its_own_config_and_never_saves(release: str) -> None:
    config = make_config()
    runtime = NpuRuntime(config, {})
    first = runtime.make_estimator(_no_model, "/m", config).config
    second = runtime.make_estimator(_no_model, "/m", config).config
    assert first.session_config is not second.session_config
    assert (second.save_checkpoints_steps, second.save_checkpoints_secs) == (0, None)
    assert second.save_summary_steps == 0
    assert second.tf_random_seed == config.train.seed


def test_old_releases_refuse_new_precision_modes(release: str) -> None:
    config = make_config(precision={"mode": "cube_fp16in_fp32out"})
    if release == NEW:
        assert parameter_map(config)["precision_mode"] == b"cube_fp16in_fp32out"
        return
    with pytest.raises(ConfigError, match="predates 2023"):
        NpuRuntime(config, {})


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"modify_mixlist": "/no/such.json"}, "no such file"),
        ({"dump_path": "/no/such"}, "no such folder"),
        ({"dump_steps": "0|5"}, "needs npu.dump_path"),
        ({"profiling_options": "task_trace"}, "not JSON"),
    ],
)
def test_useless_options_are_refused(
    release: str, settings: Dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        NpuRuntime(make_config(npu=settings), {})


def test_mixlist_needs_mixed_precision(release: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mix.json").write_text("{}")
    config = make_config(
        npu={"modify_mixlist": str(tmp_path / "mix.json")},
        precision={"mode": "must_keep_origin_dtype"},
    )
    with pytest.raises(ConfigError, match="needs precision.mode allow_mix_precision"):
        NpuRuntime(config, {})


def test_overflow_dump_is_a_mode_of_its_own(
    release: str, tmp_path: pathlib.Path
) -> None:
    settings = {"dump_path": str(tmp_path), "dump_mode": "overflow"}
    options = npu_options._debugging_options(make_config(npu=settings).npu)
    arguments = options["dump_config"].arguments
    assert arguments["enable_dump_debug"] and not arguments["enable_dump"]
    settings["dump_mode"] = "all"
    options = npu_options._debugging_options(make_config(npu=settings).npu)
    arguments = options["dump_config"].arguments
    assert arguments["enable_dump"] and arguments["dump_mode"] == "all"
    # Only None, and not an empty text, stands for all steps.
    assert arguments["dump_step"] is None
    settings["dump_steps"] = "0|5"
    options = npu_options._debugging_options(make_config(npu=settings).npu)
    assert options["dump_config"].arguments["dump_step"] == "0|5"


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_training_graph_has_what_the_vendors_models_have(
    release: str, clip_norm: float, tmp_path: pathlib.Path
) -> None:
    """Overflow is detected by the flag of the device, not by the numbers."""
    config = make_config(
        data={"image_size": 63, "mean_rgb": (127.5, 127.5, 127.5)},
        model={"width_multiplier": 1 / 16},
        optim={"gradient_clip_norm": clip_norm},
    )
    config.train.batch_size_per_rank = 2
    runtime = NpuRuntime(config, {})
    training = tiny.make_training(config)
    model_fn = build_model_fn(config, 3, runtime, training)
    estimator = runtime.make_estimator(model_fn, str(tmp_path), config)
    seen: List[tf.Graph] = []

    class Look(tf.train.SessionRunHook):
        def begin(self) -> None:
            seen.append(tf.get_default_graph())

    def input_fn() -> tf.data.Dataset:
        features = {"image": tf.zeros([2, 63, 63, 3], tf.uint8)}
        return tf.data.Dataset.from_tensors((features, tf.zeros([2], tf.int32)))

    estimator.train(input_fn, hooks=[Look()], steps=1)
    operations = seen[0].get_operations()
    kinds = {op.type for op in operations}
    assert not kinds & {"IsFinite", "ApplyGradientDescent", "CheckNumerics"}
    assert {"ApplyMomentum", "LRN", "LRNGrad"} <= kinds
    kept = {op.type for op in operations if "_keep_dtype" in op.node_def.attr}
    if release == NEW:
        assert {"LRN", "LRNGrad", "SoftmaxCrossEntropyWithLogits"} <= kept
        assert not kept & {"Conv2D", "MatMul"}
    else:
        assert not kept and parameter_map(config)["optypelist_for_implmode"] == b"LRN"


def count_steps(num_steps: int, **precision: Any) -> List[Any]:
    """Take steps with a scaled optimizer; return (scale, num_skipped, step) of each."""
    config = make_config(precision=precision)
    runtime = NpuRuntime(config, {})
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("v", [1])
        step = tf.train.get_or_create_global_step()
        optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
        with tf.control_dependencies([tf.no_op()]):
            scaled = runtime.wrap_optimizer(optimizer, config.precision)
        gradients = scaled.optimizer.compute_gradients(variable * 2.0)
        train_op = scaled.optimizer.apply_gradients(gradients, global_step=step)
        session.run(tf.global_variables_initializer())
        seen = []
        for _ in range(num_steps):
            session.run(train_op)
            fetches = [scaled.scale, scaled.num_skipped, step]
            seen.append(tuple(value.item() for value in session.run(fetches)))
        return seen


def test_dynamic_scale_grows_up_to_its_limit(release: str) -> None:
    seen = count_steps(4, initial_loss_scale=4.0, growth_steps=1, max_loss_scale=16.0)
    assert seen == [(8, 0, 1), (16, 0, 2), (16, 0, 3), (16, 0, 4)]


def test_dynamic_scale_falls_down_to_its_limit(release: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("NPU_DOUBLE_OVERFLOW", "0:2,0:3,0:4")
    seen = count_steps(5, initial_loss_scale=8.0, min_loss_scale=4.0)
    assert seen == [(8, 0, 1), (4, 1, 1), (4, 2, 1), (4, 3, 1), (4, 3, 2)]


def test_fixed_scale_skips_and_counts(release: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("NPU_DOUBLE_OVERFLOW", "0:*")
    seen = count_steps(2, loss_scale="128")
    assert seen == [(128, 1, 0), (128, 2, 0)]


def test_no_scale_never_skips(release: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("NPU_DOUBLE_OVERFLOW", "0:*")
    assert count_steps(2, loss_scale="none") == [(1, 0, 1), (1, 0, 2)]


@pytest.mark.parametrize("is_seeded", [False, True])
def test_dropout_keeps_the_mean_and_tells_layers_apart(
    release: str, is_seeded: bool
) -> None:
    runtime = NpuRuntime(make_config(npu={"seed_dropout": is_seeded}), {})
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.set_random_seed(7)
        step = tf.train.get_or_create_global_step()
        seeds = [tf.stack([tf.constant(s), tf.cast(step, tf.int32)]) for s in (1, 2)]
        masks = [runtime.dropout(tf.ones([100, 100]), 0.25, seed) for seed in seeds]
        assert graph.seed == 7
        attributes = [
            (op.get_attr("seed"), op.get_attr("seed2"))
            for op in graph.get_operations()
            if op.type == "RandomUniform"
        ]
        first, second = session.run(masks)
        assert (first != session.run(masks)[0]).any()
    # With two zeros, the generator chooses its seed.
    assert attributes == ([(7, 1), (7, 2)] if is_seeded else [(0, 0), (0, 0)])
    assert set(np.unique(first)) == {0.0, 4.0}
    assert first.mean() == pytest.approx(1.0, abs=0.1)
    assert (first != second).any()


if __name__ == "__main__":
    print(json.dumps(train_rank(*ast.literal_eval(sys.argv[1]))))
