"""Reader for ``bvlc_alexnet.npy``, a pickle that must not run code.

A pickle names functions and classes, and NumPy's own loader calls all of them.  This
module replaces the few that such a file needs by harmless ones and rejects all others.
"""

import os
import pickle
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from alexnet_estimator.errors import DataError

Weights = Dict[str, np.ndarray]
# The weights of AlexNet need about a quarter of this.
_MAX_BYTES = 1 << 30
_NUMBERS = ("f2", "f4", "f8")
_EXPECTED = "expected a pickled dictionary of layer -> [weights, biases]"


def read_caffe_file(
    path: str, layer_names: Sequence[str]
) -> Tuple[Dict[str, Weights], List[str]]:
    """Read the weights in a file that has the layout of ``bvlc_alexnet.npy``.

    Args:
        path: Path of a NumPy file that holds one pickled dictionary.  It maps the name
            of a layer to [kernel, bias].  The shape of a kernel is [height, width,
            inputs of a group, outputs] or [inputs, outputs].
        layer_names: Names of the layers to read.

    Returns:
        A mapping from each of these layers that is in the file to its ``kernel`` and
        ``bias``, float32, and a list of the names of the other entries.

    Raises:
        DataError: The file has another layout, or its weights are not finite.
    """
    if os.path.getsize(path) > _MAX_BYTES:
        raise DataError(f"larger than {_MAX_BYTES >> 20} MiB: not such a file", path)
    try:
        content = _unpickle(path)
        entries = {str(name): content[name] for name in content}
    except Exception as error:  # A manipulated file can raise any exception.
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
        ValueError: The entry is not a pair of arrays, or its values are not finite.
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
        # Python 2 wrote the values as byte strings.  Latin-1 reads every byte as one
        # character, from which __setstate__ gets the bytes back.
        (content,) = _Unpickler(file, encoding="latin1").load().value
    return content


class _PickledType:
    """Replacement for ``numpy.dtype`` while a file is read."""

    def __init__(self, code: str, *_: Any):
        self.code, self.order = code, "|"

    def __setstate__(self, state: Tuple[Any, ...]) -> None:
        self.order = state[1]


class _PickledArray:
    """Replacement for ``numpy.ndarray`` while a file is read.

    Attributes:
        value: Content, an array of numbers or a list of objects.
    """

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
    """Replace ``codecs.encode``, which Python 3 uses to pickle bytes for Python 2."""
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


# pickle.Unpickler, which is written in C, keeps its memo in an array as long as the
# largest index, so five bytes in a file could allocate gigabytes.  pickle._Unpickler,
# which is written in Python, keeps it in a dictionary.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"it refers to {full_name}, which weights never need: do not trust "
                "this file"
            )
        return _STAND_INS[full_name]
