"""Every TensorFlow call of the package is supported on an NPU.

The calls are compared with the vendor's migration list
(``tests/facts/npu_tf115_calls.json``).  An exception needs a reason, and must be used.
"""

import ast
import json
import pathlib
from typing import Dict, Iterator, List

import pytest

import alexnet_estimator
from tests import npu_double

PACKAGE = pathlib.Path(alexnet_estimator.__file__).parent
LEVELS = json.loads((npu_double.HERE / "facts/npu_tf115_calls.json").read_text())
LEVEL: Dict[str, str] = {
    f"{space}.{name}": level
    for level, spaces in LEVELS["levels"].items()
    for space, names in spaces.items()
    for name in names.split()
}
HOST = "CPUs and GPUs only: an NPU's runtime does it differently"
EXCEPTIONS = {
    "tf.data.Dataset": "batches drop the remainder, which is all that migration adds",
    "tf.estimator.EstimatorSpec": "NPUEstimator takes it; only host_call needs another",
    "tf.ConfigProto": "NPUEstimator adds its optimizer to it",
    "tf.Session": "on an NPU only with the configuration of an NPUEstimator",
    "tf.estimator.Estimator": HOST,
    "tf.estimator.RunConfig": HOST,
    "tf.train.ChiefSessionCreator": "the benchmark of the input alone, on the host",
    "tf.train.MonitoredSession": "the benchmark of the input alone, on the host",
    "tf.train.experimental.DynamicLossScale": HOST,
    "tf.train.experimental.MixedPrecisionLossScaleOptimizer": HOST,
    "tf.config.experimental.list_physical_devices": HOST,
    "tf.core.protobuf.tensor_bundle_pb2": "parses a checkpoint's index, on the host",
    "tf.raw_ops.Assert": "what tf.Assert, which is supported, puts behind a branch; in "
    "the input, on the host",
    "tf.contrib.opt.LARSOptimizer": "made of supported operators (norm, where, "
    "ApplyMomentum); the vendor deprecates all of tf.contrib, whatever it is made of",
}


def tensorflow_calls(tree: ast.AST) -> Iterator[str]:
    """Yield the names of TensorFlow's functions and classes that a file uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _as_tensorflow(node.func)
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                yield from _as_tensorflow(base)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")
            if module[0] == "tensorflow" and module[1:2] != ["compat"]:
                for alias in node.names:
                    yield ".".join(["tf"] + module[1:] + [alias.name])


def _as_tensorflow(node: ast.AST) -> List[str]:
    parts: List[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    is_tensorflow = isinstance(node, ast.Name) and node.id == "tf" and parts
    return [".".join(["tf"] + parts[::-1])] if is_tensorflow else []


def listed_name(call: str) -> str:
    """Return the part of a name that is listed: ``tf.data.Dataset`` of ``.range``."""
    parts = call.split(".")
    prefixes = [".".join(parts[:end]) for end in range(len(parts), 1, -1)]
    return next((name for name in prefixes if name in LEVEL), call)


def calls_of(file: pathlib.Path) -> List[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return sorted({listed_name(call) for call in tensorflow_calls(tree)})


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_calls_are_supported(file: pathlib.Path) -> None:
    problems = [
        f"{call}: {LEVEL.get(call, 'not on the list')}"
        for call in calls_of(file)
        if LEVEL.get(call) != "supported" and call not in EXCEPTIONS
    ]
    assert not problems


def test_exceptions_are_needed_and_have_reasons() -> None:
    used = {call for file in FILES for call in calls_of(file)}
    assert set(EXCEPTIONS) <= used
    for call, reason in EXCEPTIONS.items():
        assert LEVEL.get(call) != "supported", f"{call} needs no exception"
        assert len(reason) > 20


@pytest.mark.parametrize(
    "source, names",
    [
        ("x = tf.is_finite(y)", ["tf.is_finite"]),
        ("d = tf.data.Dataset.range(3).map(tf.nn.relu)", ["tf.data.Dataset"]),
        ("class H(tf.train.NanTensorHook): pass", ["tf.train.NanTensorHook"]),
        ("from tensorflow.contrib.opt import A", ["tf.contrib.opt.A"]),
        ("def f(x: tf.Tensor) -> tf.Tensor: pass", []),
        ("import tensorflow.compat.v1 as tf", []),
    ],
)
def test_walk_sees_uses(source: str, names: List[str]) -> None:
    found = [listed_name(call) for call in tensorflow_calls(ast.parse(source))]
    assert found == names


@pytest.mark.parametrize(
    "call, level",
    [
        ("tf.math.is_finite", "supported"),
        ("tf.is_finite", "unsupported"),
        ("tf.train.NanTensorHook", "unsupported_but_harmless"),
        ("tf.nn.dropout", "supported_after_migration"),
        ("tf.contrib.opt.LARSOptimizer", None),
    ],
)
def test_list_says_what_the_vendor_says(call: str, level: str) -> None:
    assert LEVEL.get(call) == level
