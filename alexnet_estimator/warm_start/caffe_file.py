"""``bvlc_alexnet.npy``: a pickle from elsewhere, read without running it.

NumPy's own loader calls whatever the file names.  Here each of the few names that such
a file needs leads to a stand-in of ours, and any other name to an error.
"""

import os
import pickle
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from alexnet_estimator.errors import DataError

Weights = Dict[str, np.ndarray]
# Four times the size of the full network.
_MAX_BYTES = 1 << 30
_NUMBERS = ("f2", "f4", "f8")
_EXPECTED = "expected a pickled dictionary of layer -> [weights, biases]"


def read_caffe_file(
    path: str, layer_names: Sequence[str]
) -> Tuple[Dict[str, Weights], List[str]]:
    """Read the weights of a file laid out like ``bvlc_alexnet.npy``.

    Args:
        path: Path of a NumPy file that holds one pickled dictionary, layer name ->
            [kernel, bias]; kernels are [height, width, inputs of a group, outputs] or
            [inputs, outputs].
        layer_names: Names of the layers to read.

    Returns:
        ``kernel`` and ``bias``, float32, of each of these layers that is there; and the
        names of the other entries.

    Raises:
        DataError: It is something else, or numbers are not finite.
    """
    if os.path.getsize(path) > _MAX_BYTES:
        raise DataError(f"larger than {_MAX_BYTES >> 20} MiB: no such file", path)
    try:
        content = _unpickle(path)
        entries = {str(name): content[name] for name in content}
    except Exception as error:  # Hostile bytes can raise anything.
        problem = str(error) or type(error).__name__
        raise DataError(f"{problem}; {_EXPECTED}", path) from error
    layers, problems = {}, []
    for name in sorted(set(entries) & set(layer_names)):
        try:
            layers[name] = _as_weights(entries[name])
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise DataError(problems, path)
    return layers, sorted(set(entries) - set(layers))


def _as_weights(entry: Any) -> Weights:
    """Return a layer's kernel and bias.

    Raises:
        ValueError: The entry is not a pair of arrays.
    """
    if not isinstance(entry, (list, tuple)) or len(entry) != 2:
        raise ValueError("is not [weights, biases]")
    arrays = [getattr(item, "value", None) for item in entry]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise ValueError("has no arrays of numbers")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("has values that are not finite")
    kernel, bias = (np.asarray(array, np.float32) for array in arrays)
    return {"kernel": kernel, "bias": bias}


def _unpickle(path: str) -> Any:
    with open(path, "rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of NumPy's format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.dtype(object) or shape != ():
            raise ValueError(f"an array of {dtype} {shape}")
        # Python 2's byte strings are read as characters, one for each byte.
        (content,) = _Unpickler(file, encoding="latin1").load().value
    return content


class _PickledType:
    """Type that stands for ``numpy.dtype``."""

    def __init__(self, code: str, *_: Any):
        self.code, self.order = code, "|"

    def __setstate__(self, state: Tuple[Any, ...]) -> None:
        self.order = state[1]


class _PickledArray:
    """Type that stands for ``numpy.ndarray``; ``value`` is an array, or a list."""

    value: Any = None

    def __setstate__(self, state: Tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        if kind.code in ("O", "O8"):
            self.value = list(content)
            return
        if kind.code not in _NUMBERS or kind.order not in ("<", ">", "|", "="):
            raise ValueError(f"an array of {kind.order}{kind.code}")
        if isinstance(content, str):
            content = content.encode("latin1")
        numbers = np.frombuffer(content, kind.order + kind.code)
        self.value = numbers.reshape(shape, order="F" if is_fortran else "C")


def _encode(text: str, encoding: str) -> bytes:
    """Stand for ``codecs.encode``, by which Python 3 writes bytes for Python 2."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError(f"a text in the encoding {encoding!r}")
    return text.encode("latin1")


_STAND_INS = {
    "_codecs.encode": _encode,
    "numpy.core.multiarray._reconstruct": lambda *_: _PickledArray(),
    "numpy._core.multiarray._reconstruct": lambda *_: _PickledArray(),
    "numpy.ndarray": _PickledArray,
    "numpy.dtype": _PickledType,
}


# The one in Python, whose memo is a dictionary: the one in C makes an array as long as
# the largest index, and five bytes of a file would take gigabytes.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"it refers to {full_name}, which weights never need: do not trust "
                "this file"
            )
        return _STAND_INS[full_name]
