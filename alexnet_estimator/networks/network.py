"""The description of a network for the rest of the job."""

import dataclasses
import inspect
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ml_collections import ConfigDict

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.schema import Field

_SCOPE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_FIELD_TYPES = (bool, int, float, str, tuple)


def _accept(settings: ConfigDict, image_size: int) -> List[str]:
    return []


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: its graph, its layers and its settings.

    Attributes:
        name: Variable scope of the network.  The names of all its variables start with
            ``name/LAYER/``, e.g. ``lenet/conv1/kernel``.
        build: Function that builds the graph within this scope.  It is called as
            ``build(images, num_classes, settings, dropout, compute_dtype)`` and returns
            the logits, [batch, num_classes].  ``images`` is float32 [batch, size, size,
            3], normalised; ``settings`` is the section ``model`` of the configuration.
            ``dropout`` is None outside of training; in training it may be called as
            ``dropout(x, keep_prob, layer_name)``, at most once for each layer.
            ``compute_dtype`` is the dtype of convolutions and matrix products;
            variables are always float32.
        layer_names: Names of the layers with variables, from the input to the output.
            The last one is the head, which has one output for each class.  Layers are
            frozen and restored in this order, and the position of a layer seeds its
            dropout.
        title: Name in cards and reports; by default ``name``.
        settings: Settings of the network by name.  Together with ``network``, they form
            the section ``model`` of the configuration.
        check: Function of ``(settings, image_size)`` that returns a list of problems,
            e.g. that images are too small.  The rules of the settings are checked
            before.
        drawn_kernels: Layer whose kernels, [height, width, 3, outputs], are drawn in
            TensorBoard and the report; empty for none.
        pixel_layer: First layer, if it is a convolution without padding whose variables
            are ``kernel`` and ``bias``.  A warm start folds another mean, scale or
            channel order of the pixels into it.  Empty for none.
        caffe_settings: Fields of the sections ``data`` and ``model`` with which Caffe's
            weights of this network were trained; None if there are no such weights.
        source: Name, dotted name or absolute path by which ``find_network`` finds this
            network.  ``find_network`` fills it in.
        sha256: SHA-256 (hex) of the file of the network; empty for a network of this
            package.  ``find_network`` fills it in.

    Raises:
        ConfigError: Attributes cannot be used; the message names all of them.
    """

    name: str
    build: Callable[..., Any]
    layer_names: Tuple[str, ...]
    title: str = ""
    settings: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    check: Callable[[ConfigDict, int], List[str]] = _accept
    drawn_kernels: str = ""
    pixel_layer: str = ""
    caffe_settings: Optional[Mapping[str, Mapping[str, Any]]] = None
    source: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        """Set the default title, and check the attributes."""
        problems = self._problems()
        if problems:
            raise ConfigError(problems, f"network {self.name!r}")
        object.__setattr__(self, "title", self.title or self.name)

    @property
    def head(self) -> str:
        """Return the last layer, which has one output for each class."""
        return self.layer_names[-1]

    def describe(self) -> Dict[str, Any]:
        """Return the entry in ``config.json``, for readers without the file."""
        settings = {
            name: {"default": field.default, "doc": field.doc}
            for name, field in self.settings.items()
        }
        return {
            "name": self.name,
            "title": self.title,
            "sha256": self.sha256,
            "settings": settings,
        }

    def layers_until(self, layer: str) -> Tuple[str, ...]:
        """Return the layers up to and including ``layer``; none for an empty name."""
        count = self.layer_names.index(layer) + 1 if layer else 0
        return self.layer_names[:count]

    def _problems(self) -> List[str]:
        problems = []
        names = self.layer_names
        if not isinstance(names, tuple) or not names:
            return [f"layer_names is {names!r}: must be a tuple of names"]
        for name in (self.name, *names):
            if not isinstance(name, str) or not _SCOPE.fullmatch(name):
                problems.append(
                    f"{name!r} cannot be a scope: must be a letter, followed by "
                    "letters, digits and any of . _ -"
                )
        if len(set(names)) < len(names):
            problems.append(f"layer_names is {names}: must not repeat a name")
        for attribute in ("drawn_kernels", "pixel_layer"):
            layer = getattr(self, attribute)
            if layer and layer not in names:
                problems.append(f"{attribute} is {layer!r}: must be one of {names}")
        for setting, field in self.settings.items():
            problems += _setting_problems(setting, field)
        problems += _signature_problems(
            "build",
            self.build,
            ("images", "num_classes", "settings", "dropout", "compute_dtype"),
        )
        return problems + _signature_problems(
            "check", self.check, ("settings", "image_size")
        )


def _setting_problems(name: str, field: Field) -> List[str]:
    if not str(name).isidentifier() or name == "network":
        return [f"{name!r} cannot be the name of a setting"]
    if not isinstance(field, Field):
        return [f"the setting {name} is {field!r}: must be a schema.Field"]
    if type(field.default) not in _FIELD_TYPES:
        kinds = ", ".join(kind.__name__ for kind in _FIELD_TYPES)
        return [f"the setting {name} is {field.default!r}: must be one of {kinds}"]
    if not field.rule.accepts(field.default):
        return [f"the setting {name} is {field.default!r}: must be {field.rule.text}"]
    return []


def _signature_problems(
    name: str, function: Callable[..., Any], parameters: Tuple[str, ...]
) -> List[str]:
    wanted = f"{name} must be a function of ({', '.join(parameters)})"
    if not callable(function):
        return [f"{name} is {function!r}: {wanted}"]
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError as error:
        return [f"{name}: {error}; {wanted}"]
    return []
