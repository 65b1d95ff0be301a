"""The NPU runtime and the stand-in agree with the facts about npu_bridge.

The facts are the signatures of six releases.  The tests refuse what the real one, its
C++ part or the device refuses (``tests/facts/npu_bridge.json``).
"""

import ast
import importlib
import inspect
import json
import os
import pathlib
import threading
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import alexnet_estimator
from tests import npu_double

PACKAGE = pathlib.Path(alexnet_estimator.__file__).parent
FACTS = json.loads((npu_double.HERE / "facts/npu_bridge.json").read_text())
RELEASES = list(FACTS["releases"])
VENDOR = ("npu_bridge", "hccl")


def signature(name: str, release: str) -> inspect.Signature:
    for text, releases in FACTS["signatures"][name].items():
        if releases == ["all"] or release in releases:
            return inspect.signature(eval(f"lambda {text}: None"))
    raise AssertionError(f"{name} does not exist in {release}")


def vendor_imports(tree: ast.AST) -> Dict[str, str]:
    """Return the full name of each name that a file imports from the vendor."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in VENDOR:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in VENDOR:
                    found[alias.asname or alias.name] = alias.name
    return found


USERS = (
    "runtime/npu.py",
    "runtime/npu_loss_scale.py",
    "runtime/npu_options.py",
    "runtime/npu_runtime.py",
)


def runtime_tree() -> ast.Module:
    texts = [(PACKAGE / name).read_text(encoding="utf-8") for name in USERS]
    return ast.parse("\n".join(texts))


def test_only_the_runtime_imports_npu_bridge_and_only_when_needed() -> None:
    importers = []
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if vendor_imports(tree):
            importers.append(file.relative_to(PACKAGE).as_posix())
        assert not vendor_imports(ast.Module(body=_top_level(tree)))
    assert sorted(importers) == list(USERS)
    names = vendor_imports(runtime_tree()).values()
    assert not [name for name in names if "npu_init" in name or name.endswith("*")]


def _top_level(tree: ast.Module) -> List[ast.stmt]:
    return [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]


def vendor_calls() -> Iterator[Tuple[str, ast.Call]]:
    """Yield (full name, call) of each call of the vendor's in the runtime."""
    tree = runtime_tree()
    imported = vendor_imports(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in imported:
            yield imported[function.id], node
        elif isinstance(function, ast.Attribute) and isinstance(
            function.value, ast.Name
        ):
            if function.value.id in imported:
                yield f"{imported[function.value.id]}.{function.attr}", node


@pytest.mark.parametrize("release", RELEASES)
def test_calls_fit_every_release(release: str) -> None:
    calls = list(vendor_calls())
    assert len(calls) >= 10
    for name, call in calls:
        keywords = {k.arg: None for k in call.keywords if k.arg is not None}
        # Options after ** are filtered by the installed release's signature.
        bind = signature(name, release).bind
        if len(keywords) < len(call.keywords):
            bind = signature(name, release).bind_partial
        bind(*call.args, **keywords)


def test_nothing_private_of_npu_bridge_is_touched() -> None:
    for node in ast.walk(runtime_tree()):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            if not node.attr.startswith("__"):
                assert isinstance(node.value, ast.Name) and node.value.id == "self"
    [counting] = [
        node
        for node in ast.walk(runtime_tree())
        if isinstance(node, ast.ClassDef) and node.name == "CountingManager"
    ]
    attributes = [n.attr for n in ast.walk(counting) if isinstance(n, ast.Attribute)]
    private = [name for name in attributes if name.startswith("_")]
    assert private == ["__init__"]


@pytest.fixture
def double(monkeypatch: Any) -> Iterator[Callable[[str], Any]]:
    """Return ``importlib.import_module`` for modules of the newer release."""
    npu_double.load(monkeypatch, npu_double.NEW)
    yield importlib.import_module
    npu_double.forget()


@pytest.mark.parametrize("release", [npu_double.OLD, npu_double.NEW])
def test_stand_in_has_the_signatures_of_the_release(
    release: str, monkeypatch: Any
) -> None:
    npu_double.load(monkeypatch, release)
    num_checked = 0
    for name in FACTS["signatures"]:
        module_name, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module_name), attribute, None)
        if found is not None:
            assert inspect.signature(found) == signature(name, release), name
            num_checked += 1
    npu_double.forget()
    assert num_checked >= 18


def test_unknown_arguments_are_refused(double: Any) -> None:
    config = double("npu_bridge.estimator.npu.npu_config")
    with pytest.raises(TypeError):
        config.NPURunConfig(auto_tune_mode="RL")


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"iterations_per_loop": 0}, ValueError),
        ({"iterations_per_loop": 1.0}, TypeError),
        ({"mix_compile_mode": True, "iterations_per_loop": 2}, ValueError),
        ({"save_checkpoints_steps": 1, "save_checkpoints_secs": 1}, ValueError),
        ({"dump_config": "all"}, ValueError),
    ],
)
def test_run_config_is_checked(double: Any, arguments: Any, error: Any) -> None:
    config = double("npu_bridge.estimator.npu.npu_config")
    with pytest.raises(error):
        config.NPURunConfig(**arguments)


def test_saving_is_on_unless_switched_off(double: Any) -> None:
    config = double("npu_bridge.estimator.npu.npu_config")
    assert config.NPURunConfig().save_checkpoints_steps == 100
    assert config.NPURunConfig(save_checkpoints_steps=0).save_checkpoints_steps == 0


def static_input() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors((tf.ones([2, 3]), tf.ones([2]))).repeat(8)


def small_model(features: tf.Tensor, labels: tf.Tensor, mode: str) -> Any:
    weight = tf.get_variable("weight", [3], initializer=tf.ones_initializer())
    loss = tf.reduce_sum(weight * tf.reduce_mean(features, axis=0))
    optimizer = tf.train.GradientDescentOptimizer(0.5)
    train_op = optimizer.minimize(loss, tf.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def train(
    double: Any,
    model_dir: pathlib.Path,
    model_fn: Any = small_model,
    input_fn: Any = static_input,
    **arguments: Any,
) -> None:
    config = double("npu_bridge.estimator.npu.npu_config")
    estimator = double("npu_bridge.estimator.npu.npu_estimator")
    run_config = config.NPURunConfig(
        model_dir=str(model_dir), save_checkpoints_steps=0, **arguments
    )
    hooks = arguments.pop("hooks", [])
    estimator.NPUEstimator(model_fn, config=run_config).train(input_fn, hooks, steps=2)


def test_static_graph_trains(double: Any, tmp_path: pathlib.Path) -> None:
    train(double, tmp_path, iterations_per_loop=2)
    assert not list(tmp_path.glob("model.ckpt*"))


def dynamic_input() -> tf.data.Dataset:
    examples = tf.data.Dataset.from_tensor_slices((tf.ones([8, 3]), tf.ones([8])))
    return examples.batch(3)


def one_shot_input() -> Any:
    return tf.data.make_one_shot_iterator(static_input()).get_next()


def summary_model(features: tf.Tensor, labels: tf.Tensor, mode: str) -> Any:
    spec = small_model(features, labels, mode)
    tf.summary.scalar("mean", tf.reduce_mean(features))
    return spec


def python_model(features: tf.Tensor, labels: tf.Tensor, mode: str) -> Any:
    [same] = tf.py_func(lambda x: x, [features], [tf.float32])
    same.set_shape(features.shape)
    return small_model(same, labels, mode)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"precision_mode": "bogus"}, "precision_mode bogus"),
        ({"modify_mixlist": "m.json", "precision_mode": "force_fp32"}, "mixlist"),
        ({"input_fn": dynamic_input}, "dynamic shape"),
        ({"input_fn": one_shot_input, "iterations_per_loop": 2}, "one-shot"),
        ({"model_fn": summary_model}, "summary mean"),
        ({"model_fn": python_model}, "Python function"),
    ],
)
def test_what_a_device_would_refuse(
    double: Any, tmp_path: pathlib.Path, arguments: Any, words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        train(double, tmp_path, **arguments)


def test_one_shot_iterator_is_fine_without_loops(
    double: Any, tmp_path: pathlib.Path
) -> None:
    train(double, tmp_path, input_fn=one_shot_input)


def test_feeds_do_not_reach_into_a_loop(double: Any) -> None:
    hook = double("npu_bridge.estimator.npu.npu_hook").SetIterationsVarHook(2)
    with tf.Graph().as_default():
        fed = tf.placeholder(tf.float32, [])
        step = tf.group(tf.identity(fed), name="IterationOp")
        with tf.train.MonitoredSession(hooks=[hook]) as session:
            with pytest.raises(RuntimeError, match="feed_dict"):
                session.run(step, {fed: 1.0})


def test_old_release_knows_fewer_precision_modes(
    monkeypatch: Any, tmp_path: pathlib.Path
) -> None:
    npu_double.load(monkeypatch, npu_double.OLD)
    with pytest.raises(RuntimeError, match="force_fp32"):
        train(importlib.import_module, tmp_path, precision_mode="force_fp32")
    npu_double.forget()


def test_shared_run_configs_are_refused(double: Any) -> None:
    config = double("npu_bridge.estimator.npu.npu_config").NPURunConfig(
        model_dir="/m", session_config=tf.ConfigProto()
    )
    estimator = double("npu_bridge.estimator.npu.npu_estimator")
    used = estimator.NPUEstimator(small_model, config=config).config
    for again in (config, used):
        with pytest.raises(RuntimeError, match="used already"):
            estimator.NPUEstimator(small_model, config=again)


def test_job_id_is_needed(double: Any, monkeypatch: Any) -> None:
    config = double("npu_bridge.estimator.npu.npu_config").NPURunConfig(model_dir="/m")
    estimator = double("npu_bridge.estimator.npu.npu_estimator")
    monkeypatch.delenv("JOB_ID")
    with pytest.raises(ValueError, match="JOB_ID"):
        estimator.NPUEstimator(small_model, config=config)


def test_stock_run_configs_are_refused(double: Any) -> None:
    estimator = double("npu_bridge.estimator.npu.npu_estimator")
    with pytest.raises(ValueError, match="NPURunConfig"):
        estimator.NPUEstimator(small_model, config=tf.estimator.RunConfig())


def test_ranks_are_unknown_before_initialisation(double: Any) -> None:
    manage, split = double("hccl.manage.api"), double("hccl.split.api")
    for query in (manage.get_rank_id, manage.get_rank_size):
        with pytest.raises(ValueError, match="error. ret"):
            query()
    with pytest.raises(ValueError, match="error. ret"):
        split.set_split_strategy_by_size([60, 40])
    double("npu_bridge.device").initialise()
    assert (manage.get_rank_id(), manage.get_rank_size()) == (0, 1)
    for wrong in ([60, 41], (60, 40), [12] * 8 + [4]):
        with pytest.raises(ValueError):
            split.set_split_strategy_by_size(wrong)


def test_two_sources_of_ranks_are_refused(double: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("CM_WORKER_SIZE", "1")
    with pytest.raises(ValueError, match="CM_WORKER_SIZE"):
        double("npu_bridge.device").rank_size()


def test_operators_are_strict(double: Any) -> None:
    npu_ops = double("npu_bridge.estimator.npu_ops")
    hccl_ops = double("npu_bridge.hccl.hccl_ops")
    with tf.Graph().as_default():
        x = tf.ones([4])
        assert npu_ops.dropout(x, 1.0) is x
        for keep_prob, error in ((1, TypeError), (0.0, ValueError), (1.5, ValueError)):
            with pytest.raises(error):
                npu_ops.dropout(x, keep_prob)
        with pytest.raises(TypeError, match="seed"):
            npu_ops.dropout(x, 0.5, seed=tf.constant(1))
        with pytest.raises(TypeError, match="int64"):
            hccl_ops.allreduce(tf.constant([1], tf.int64), "sum")
        with pytest.raises(ValueError, match="mean"):
            hccl_ops.allreduce(x, "mean")
        with pytest.raises(RuntimeError, match="dynamic"):
            hccl_ops.allreduce(tf.placeholder(tf.float32, [None]), "sum")


def test_dynamic_scale_is_not_made_under_control_dependencies(double: Any) -> None:
    managers = double("npu_bridge.estimator.npu.npu_loss_scale_manager")
    with tf.Graph().as_default(), tf.control_dependencies([tf.no_op()]):
        with pytest.raises(RuntimeError, match="Placeholder not support"):
            managers.ExponentialUpdateLossScaleManager(2.0, 100)
    with pytest.raises(ValueError):
        managers.FixedLossScaleManager(0.5)


def test_star_import_is_refused(double: Any) -> None:
    with pytest.raises(ImportError, match="explicit submodules"):
        double("npu_bridge.npu_init")


def ask_together(
    double: Any, requests: List[Tuple[str, str, Any]], **kwargs: Any
) -> Dict[int, Any]:
    """Let each rank, a thread, make one request; return results and errors."""
    ranks = double("npu_bridge.ranks")
    address = f"npu-contract-{os.getpid()}-{kwargs.pop('name')}"
    answers: Dict[int, Any] = {}

    def ask(rank: int) -> None:
        try:
            group = ranks.Group(rank, kwargs["num_ranks"], address, 0.5)
            answers[rank] = group.combine(*requests[rank])
        except RuntimeError as error:
            answers[rank] = str(error)

    first = kwargs.get("first_rank", 0)
    members = range(first, first + len(requests) - first)
    threads = [threading.Thread(target=ask, args=(rank,)) for rank in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_ranks_exchange_values(double: Any) -> None:
    one, two = np.float32([1, 2]), np.float32([10, 20])
    expected = {"sum": [11, 22], "gather": [1, 2, 10, 20], "1": [10, 20]}
    for how, values in expected.items():
        requests = [("x", how, one), ("x", how, two)]
        answers = ask_together(double, requests, num_ranks=2, name=how)
        assert [answers[rank].tolist() for rank in (0, 1)] == [values] * 2


def test_ranks_that_differ_or_fail_are_told(double: Any) -> None:
    one = np.float32([1, 2])
    differ = [("x", "sum", one), ("x", "sum", one[:1])]
    answers = ask_together(double, differ, num_ranks=2, name="differ")
    assert all("EI0005" in answers[rank] for rank in (0, 1))
    answers = ask_together(double, [("x", "sum", one)], num_ranks=2, name="missing")
    assert answers[0].startswith("EI0002")
    requests = [("x", "sum", one)] * 2
    answers = ask_together(
        double, requests, num_ranks=2, name="no-server", first_rank=1
    )
    assert answers[1].startswith("EI0006")
