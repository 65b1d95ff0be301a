"""What the job has to know of a network."""

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
        name: Variable scope of the network.  All of its variables are called
            ``name/LAYER/...``, e.g. ``lenet/conv1/kernel``.
        build: Function that builds the graph, called within that scope as
            ``build(images, num_classes, settings, dropout, compute_dtype)``.
            ``images`` is float32 [batch, size, size, 3], normalised; ``settings`` is
            the section ``model`` of the configuration; ``dropout`` is None outside of
            training, and otherwise called as ``dropout(x, keep_prob, layer_name)``, at
            most once in a layer; ``compute_dtype`` is the dtype of convolutions and
            matrix products (variables are float32 in any case).  Returns the logits,
            [batch, num_classes].
        layer_names: Names of the layers that have variables, from the pictures up.  The
            last one is the head, which has an output for each class.  The position of
            a layer seeds its dropout and is the order in which layers are frozen and
            taken over from another run.
        title: Name for people; by default ``name``.
        settings: Settings of the network by name.  With ``network``, they are the
            section ``model`` of the configuration.
        check: Function that returns what is wrong with ``(settings, image_size)``, e.g.
            pictures that are too small.  Each setting has passed its own rule before.
        drawn_kernels: Layer whose kernels, [height, width, 3, outputs], are drawn for
            people; empty: none is.
        pixel_layer: Layer that takes over pixels of another mean, scale or order of
            channels when a run starts with weights from elsewhere.  It is the first
            layer, a convolution without padding, and its variables are ``kernel`` and
            ``bias``; empty: there is no such layer.
        caffe_settings: Fields of the sections ``data`` and ``model`` by which the
            weights of this network in Caffe were trained; None: there are no such.
        source: Name by which ``find_network`` finds it, which it fills in: a name, a
            dotted name or an absolute path.
        sha256: SHA-256 (hex) of its file, which ``find_network`` fills in; empty for a
            network of this package.

    Raises:
        ConfigError: Some of these cannot be used, all of which are named.
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
        """Fill in the title, and refuse what the job could not work with."""
        problems = self._problems()
        if problems:
            raise ConfigError(problems, f"network {self.name!r}")
        object.__setattr__(self, "title", self.title or self.name)

    @property
    def head(self) -> str:
        """The last layer, which has an output for each class."""
        return self.layer_names[-1]

    def describe(self) -> Dict[str, Any]:
        """Return what a run records of its network, for readers without its file."""
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
        """Return the layers up to and including one; none for an empty name."""
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
                    f"{name!r} cannot be a scope: a letter, then letters, digits and "
                    "any of . _ -"
                )
        if len(set(names)) < len(names):
            problems.append(f"layer_names is {names}: a name is in it twice")
        for attribute in ("drawn_kernels", "pixel_layer"):
            layer = getattr(self, attribute)
            if layer and layer not in names:
                problems.append(f"{attribute} is {layer!r}: not one of {names}")
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
