"""Networks by name: those of this package, of other packages, and of a user's files."""

import dataclasses
import functools
import hashlib
import importlib
import os
import sys
import traceback
import types
from typing import Any

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks.network import Network

DEFAULT = "alexnet"
EXPORTED = "exported"
_ATTRIBUTE = "network"
_OWN = {
    DEFAULT: "alexnet_estimator.networks.alexnet",
    EXPORTED: "alexnet_estimator.networks.exported",
}


def find_network(name: str) -> Network:
    """Return a network.

    A file or module is Python code and runs with your rights.

    Args:
        name: ``alexnet``; the path of a Python file that holds
            ``network = Network(...)``; or the dotted name of such a module,
            ``package.module`` or ``package.module:ATTRIBUTE``.

    Returns:
        The network.  Its attribute ``source`` finds it again from any folder.

    Raises:
        ConfigError: There is no such network, or its file cannot be used.
    """
    if is_file_name(name):
        return _from_file(os.path.abspath(os.path.expanduser(name)))
    return _from_module(name)


def is_file_name(name: str) -> bool:
    """Return whether the name of a network is the path of a file."""
    return name.endswith(".py") or os.sep in name


# A file that changes while a job trains must not be used half old and half new.
@functools.lru_cache(maxsize=None)
def _from_file(path: str) -> Network:
    try:
        with open(path, "rb") as file:
            code = file.read()
    except OSError as error:
        raise ConfigError(
            f"{error.strerror}: --config.model.network takes the path of a Python "
            "file with a network; where the file of a run has moved, give its new path",
            path,
        ) from error
    digest = hashlib.sha256(code).hexdigest()
    stem = os.path.splitext(os.path.basename(path))[0]
    module = types.ModuleType(f"_network_{stem}_{digest[:8]}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look their module up there.
    try:
        # Not through importlib, whose cached bytecode can be that of an older file.
        exec(compile(code, path, "exec"), module.__dict__)
    except Exception as error:  # The file is the user's code: any error may come.
        raise _explain(error, path) from error
    return _take(module, _ATTRIBUTE, path, digest)


@functools.lru_cache(maxsize=None)
def _from_module(name: str) -> Network:
    module_name, _, attribute = name.partition(":")
    module_name = _OWN.get(module_name, module_name)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # The module is the user's code: any error may come.
        missing = getattr(error, "name", None) or ""
        is_missing = isinstance(error, ModuleNotFoundError)
        if not name or is_missing and f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"no network {name!r}: there is {DEFAULT}; for another one, "
                "give the path of its file, e.g. examples/lenet.py, or package.module"
            ) from error
        raise _explain(error, name) from error
    file = getattr(module, "__file__", None)
    digest = ""
    if name not in _OWN and file:
        with open(file, "rb") as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
    return _take(module, attribute or _ATTRIBUTE, name, digest)


def _take(module: Any, attribute: str, source: str, digest: str) -> Network:
    network = getattr(module, attribute, None)
    if not isinstance(network, Network):
        what = "has no" if network is None else f"has {type(network).__name__} as"
        raise ConfigError(
            f"{what} `{attribute}`: it must hold `{attribute} = Network(...)`", source
        )
    return dataclasses.replace(network, source=source, sha256=digest)


def _explain(error: Exception, source: str) -> ConfigError:
    if isinstance(error, ConfigError):
        return ConfigError(error.problems, f"{source}: {error.heading}".rstrip(": "))
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == source]
    where = f" (line {lines[-1]})" if lines else ""
    return ConfigError(f"{type(error).__name__}: {error}{where}", source)
