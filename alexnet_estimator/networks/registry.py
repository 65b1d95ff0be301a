"""Lookup of networks: in this package, in other packages and in a user's files."""

import dataclasses
import errno
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
    """Return a network by its name.

    The file or module of a network is Python code and runs with your rights.

    Args:
        name: Name of a network, ``alexnet``; or the path of a Python file that contains
            ``network = Network(...)``; or the dotted name of such a module,
            ``package.module`` or ``package.module:ATTRIBUTE``.

    Returns:
        The network, with its attribute ``source``, which is valid in any folder.

    Raises:
        ConfigError: The network does not exist, or its file cannot be used.
    """
    if is_file_name(name):
        return _from_file(os.path.abspath(os.path.expanduser(name)))
    return _from_module(name)


def is_file_name(name: str) -> bool:
    """Return whether the name of a network is the path of a file."""
    return name.endswith(".py") or os.sep in name


# The cache makes sure that one job uses one version of a file, even if it changes.
@functools.lru_cache(maxsize=None)
def _from_file(path: str) -> Network:
    try:
        with open(path, "rb") as file:
            code = file.read()
    except OSError as error:
        if error.errno == errno.EIO:  # The disk is broken: no other path would help.
            error.filename = path
            raise
        raise ConfigError(
            f"{error.strerror}: --config.model.network takes the path of a Python "
            "file with a network; if the file of a run has moved, give its new path",
            path,
        ) from error
    digest = hashlib.sha256(code).hexdigest()
    stem = os.path.splitext(os.path.basename(path))[0]
    module = types.ModuleType(f"_network_{stem}_{digest[:8]}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # Needed by dataclasses in the file.
    try:
        # importlib is not used, because its cached bytecode may be of an older file.
        exec(compile(code, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # The user's code can raise any error.
        raise explain(error, path) from error
    return _take(module, _ATTRIBUTE, path, digest)


@functools.lru_cache(maxsize=None)
def _from_module(name: str) -> Network:
    module_name, _, attribute = name.partition(":")
    module_name = _OWN.get(module_name, module_name)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # The user's code can raise any error.
        missing = getattr(error, "name", None) or ""
        is_missing = isinstance(error, ModuleNotFoundError)
        if not name or is_missing and f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"there is no network {name!r}: use {DEFAULT}, the path of a Python "
                "file, e.g. examples/lenet.py, or package.module"
            ) from error
        raise explain(error, name) from error
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
            f"{what} `{attribute}`: must contain `{attribute} = Network(...)`", source
        )
    return dataclasses.replace(network, source=source, sha256=digest)


def explain(error: BaseException, source: str) -> ConfigError:
    """Return the message for an error in a user's network, with its line."""
    if isinstance(error, ConfigError):
        return ConfigError(error.problems, f"{source}: {error.heading}".rstrip(": "))
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == source]
    where = f" (line {lines[-1]})" if lines else ""
    return ConfigError(f"{type(error).__name__}: {error}{where}", source)
