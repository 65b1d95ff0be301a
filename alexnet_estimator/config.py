"""The configuration: its defaults, changes, checks and its frozen form.

``default_config()`` returns a locked ``ml_collections.ConfigDict``.  The files in
``configs/`` change a few of its fields, and ``apply_overrides`` applies
``--config.section.field=value`` of the command line.  ``validate`` reports all problems
in one message before anything expensive starts.  ``resolve`` returns the frozen copy
that a job uses.

The section ``model`` consists of ``network`` and of the settings of that network.
Choosing another network replaces the section by the defaults of that network.

This module does not import TensorFlow.
"""

import ast
import dataclasses
import difflib
import json
import re
import reprlib
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ml_collections import ConfigDict as Config
from ml_collections import FrozenConfigDict

from alexnet_estimator import engine
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks import DEFAULT, Network, find_network
from alexnet_estimator.rules import MAX_NUMBER, PATH, Rule, one_of
from alexnet_estimator.schema import ACCELERATORS, PRECISION_ALIASES, SCHEMA, Field

# The subcommands that take training steps.
TRAINING_VERBS = ("train", "benchmark")
_SCALARS = (str, int, float)  # A bool is an int.


def fields_of(network: Network) -> Dict[str, Dict[str, Field]]:
    """Return the fields of a configuration with this network, by section and name."""
    frozen_until = dataclasses.replace(
        SCHEMA["warm_start"]["frozen_until"],
        rule=one_of("", *network.layer_names[:-1]),
    )
    return {
        **SCHEMA,
        "model": {**SCHEMA["model"], **network.settings},
        "warm_start": {**SCHEMA["warm_start"], "frozen_until": frozen_until},
    }


def default_config(network: str = DEFAULT) -> Config:
    """Return the default configuration, locked: new fields cannot be added.

    Args:
        network: Name of the network, see ``networks.find_network``.

    Raises:
        ConfigError: The network does not exist.
    """
    chosen = find_network(network)
    sections = {
        section: {name: field.default for name, field in fields.items()}
        for section, fields in fields_of(chosen).items()
    }
    sections["model"]["network"] = chosen.source
    return Config(sections).lock()


def config_from(changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return the default configuration with some fields changed.

    Args:
        changes: Values by section and field, ``{section: {field: value}}``.

    Raises:
        ConfigError: Names are unknown, or values have the wrong type; the message lists
            all of them.
    """
    config, problems = default_config(), []
    pairs = []
    for section, fields in changes.items():
        if not isinstance(fields, Mapping):
            problems.append(f"{section} is {fields!r}: must be a mapping of fields")
            continue
        pairs += [(f"{section}.{name}", value) for name, value in fields.items()]
    for name, value in _network_first(pairs):
        problems.extend(_assign(config, name, value))
    if problems:
        raise ConfigError(problems, "configuration")
    return config


def _network_first(pairs: Iterable[Tuple[str, Any]]) -> List[Tuple[str, Any]]:
    # The network decides which settings the section model has.
    return sorted(pairs, key=lambda pair: pair[0] != "model.network")


def apply_overrides(config: Config, overrides: Iterable[Tuple[str, str]]) -> None:
    """Apply the fields that a command line sets.

    Args:
        config: Configuration, which is changed in place.
        overrides: Names and values, such as ``("optim.momentum", "0.95")``.

    Raises:
        ConfigError: Names are unknown, or values have the wrong type; the message lists
            all of them.
    """
    problems: List[str] = []
    for name, text in _network_first(overrides):
        problems.extend(_assign_text(config, name, text))
    if problems:
        raise ConfigError(problems, "command line")


def validate(config: Config, verb: str = "") -> None:
    """Check all values and combinations of values.

    Args:
        config: Configuration, which stays unchanged.
        verb: Name of the subcommand; ``train`` and ``benchmark`` need more than the
            others do.

    Raises:
        ConfigError: Fields are wrong; the message lists each one with its value and its
            rule.
    """
    network = find_network(config.model.network)
    fields = fields_of(network)
    if set(config.model) != set(fields["model"]):
        raise ConfigError(
            f"the section model does not have the fields of the network "
            f"{network.name}: choose the network with "
            f'config_from({{"model": {{"network": ...}}}})'
        )
    wrong = {
        f"{section}.{name}": f"is {config[section][name]!r}: must be {field.rule.text}"
        for section, members in fields.items()
        for name, field in members.items()
        if not field.rule.accepts(config[section][name])
    }
    problems = [f"{name} {problem}" for name, problem in wrong.items()]
    if not problems:
        problems.extend(_check_network(network, config))
    # A combination that contains a wrong value is a consequence, not a second problem.
    problems += [
        problem
        for problem in _bad_combinations(config)
        if not any(re.search(rf"\b{name}\b", problem) for name in wrong)
    ]
    if verb == "train" and not config.warm_start.path:
        problems += [
            f"warm_start.{name} is {value!r} but warm_start.path is '': give "
            "--warm_start_from"
            for name, value in config.warm_start.items()
            if value != SCHEMA["warm_start"][name].default
        ]
    if verb in TRAINING_VERBS:
        device = config.runtime.device
        adapter = ACCELERATORS[device].adapter if device in ACCELERATORS else ""
        problems.extend(engine.lacking(device, adapter, config.optim.optimizer))
    if problems:
        raise ConfigError(problems, "configuration")


def resolve(
    config: Config,
    precision_mode: str = "",
    mean_rgb: Sequence[float] = (),
    steps_per_loop: int = 0,
) -> Config:
    """Return a frozen copy with the values that the machine and the data decide.

    Args:
        config: Valid configuration, which stays unchanged.
        precision_mode: Precision mode that the accelerator chooses; empty to use
            ``precision.mode``.
        mean_rgb: Mean colour of the data, 0 to 255, for a configuration without one.
        steps_per_loop: Number of training steps in one call of ``session.run``; 0 to
            use ``npu.iterations_per_loop``, which a run may have recorded.

    Returns:
        A frozen configuration.
    """
    resolved = Config(config.to_dict())
    mode = precision_mode or config.precision.mode
    resolved.precision.mode = PRECISION_ALIASES.get(mode, mode)
    resolved.npu.iterations_per_loop = (
        steps_per_loop or config.npu.iterations_per_loop or 1
    )
    if not config.data.mean_rgb:
        resolved.data.mean_rgb = tuple(round(mean, 3) for mean in mean_rgb)
    return FrozenConfigDict(resolved)


def to_json(config: Config) -> str:
    """Return the configuration as JSON text with sorted keys."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def path_fields(config: Config) -> List[Tuple[str, str]]:
    """Return the names and values of the fields that hold paths."""
    return [
        (f"{section}.{name}", config[section][name])
        for section, fields in SCHEMA.items()
        for name, field in fields.items()
        if field.rule.text == PATH.text
    ]


def describe_fields(
    sections: Iterable[str] = tuple(SCHEMA), network: str = DEFAULT
) -> str:
    """Return two lines for each field: its default, then its meaning and its values.

    Args:
        sections: Sections whose fields are described.
        network: Name of the network, see ``networks.find_network``.
    """
    fields = fields_of(find_network(network))
    return "\n".join(
        f"  --config.{section}.{name}={field.default}\n"
        f"      {field.doc} ({field.describe_values()})"
        for section in sections
        for name, field in fields[section].items()
    )


def _check_network(network: Network, config: Config) -> List[str]:
    """Return the problems that the network finds in its settings."""
    problems = network.check(config.model, config.data.image_size)
    if not isinstance(problems, list):
        raise ConfigError(
            f"check() returned {problems!r}: must be a list of problems", network.source
        )
    return problems


def _bad_combinations(config: Config) -> List[str]:
    """Return a message with both values for each pair of fields in conflict."""
    data, optim, train = config.data, config.optim, config.train
    problems = []
    if data.synthetic and data.path:
        problems.append(
            f"data.synthetic is True and data.path is {data.path!r}: choose one"
        )
    problems.extend(_bad_folds(config))
    if train.steps == 0 and train.epochs == 0:
        problems.append("train.steps and train.epochs are both 0: nothing to train")
    if optim.schedule == "step" and not optim.decay_epochs:
        problems.append("optim.schedule is 'step' but optim.decay_epochs is ()")
    if optim.schedule == "plateau" and train.eval_every_epochs == 0:
        problems.append(
            "optim.schedule is 'plateau' but train.eval_every_epochs is 0: "
            "the plateau schedule needs evaluations"
        )
    if train.patience_epochs > 0 and train.eval_every_epochs == 0:
        problems.append(
            f"train.patience_epochs is {train.patience_epochs} but "
            "train.eval_every_epochs is 0: only evaluations show an improvement"
        )
    if optim.end_learning_rate > optim.learning_rate:
        problems.append(
            f"optim.end_learning_rate is {optim.end_learning_rate}: must not be above "
            f"optim.learning_rate = {optim.learning_rate}"
        )
    if optim.use_nesterov and optim.optimizer != "momentum":
        problems.append(
            f"optim.use_nesterov is True but optim.optimizer is {optim.optimizer!r}: "
            "only momentum supports it"
        )
    names = ("min_loss_scale", "initial_loss_scale", "max_loss_scale")
    scales = [config.precision[name] for name in names]
    if scales != sorted(scales):
        listed = ", ".join(f"precision.{name}" for name in names)
        problems.append(f"{listed} are {scales}: must be in ascending order")
    return problems


def _bad_folds(config: Config) -> List[str]:
    num_folds, fold = config.convert.num_folds, config.convert.fold
    problems = []
    if num_folds == 1:
        problems.append("convert.num_folds is 1: must be 0, or at least 2")
    if fold and fold >= num_folds:
        problems.append(
            f"convert.fold is {fold} but convert.num_folds is {num_folds}: the first "
            "fold is 0, and the last is num_folds - 1"
        )
    for name in ("convert.eval_images", "data.synthetic"):
        section, _, field = name.partition(".")
        if num_folds and config[section][field]:
            problems.append(
                f"convert.num_folds is {num_folds} and {name} is "
                f"{config[section][field]}: choose one"
            )
    return problems


def _assign_text(config: Config, name: str, text: str) -> List[str]:
    """Convert a text to the type of the field, assign it, and return problems."""
    field = _find_field(config, name)
    if field is None:
        return [_unknown_field(config, name)]
    try:
        value = _parse(text, type(field.default))
    except (ValueError, SyntaxError):
        kind = type(field.default).__name__
        default = field.default
        return [f"{name} is {text!r}: must be of type {kind}, such as {default!r}"]
    return _assign(config, name, value)


def _assign(config: Config, name: str, value: Any) -> List[str]:
    field = _find_field(config, name)
    if field is None:
        return [_unknown_field(config, name)]
    expected = type(field.default)
    if expected is tuple and isinstance(value, list):  # JSON has no tuples.
        value = tuple(value)
    if expected is float and type(value) is int and abs(value) < MAX_NUMBER:
        value = float(value)
    if type(value) is not expected:
        return [f"{name} is {value!r}: must be of type {expected.__name__}"]
    if expected is tuple and not all(isinstance(item, _SCALARS) for item in value):
        # FrozenConfigDict fails on some nested values, before their rule is checked.
        return [f"{name} is {value!r}: must contain only numbers or names"]
    if name == "model.network":
        network = find_network(value)
        if network.source != config.model.network:
            with config.unlocked():
                config.model = default_config(network.source).model
        return []
    section, _, field_name = name.partition(".")
    config[section][field_name] = value
    return []


def _find_field(config: Config, name: str) -> Optional[Field]:
    section, _, field_name = name.partition(".")
    fields = fields_of(find_network(config.model.network))
    return fields.get(section, {}).get(field_name)


def _unknown_field(config: Config, name: str) -> str:
    network = find_network(config.model.network)
    fields = fields_of(network)
    known = [f"{section}.{field}" for section in fields for field in fields[section]]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see --helpfull for all fields"
    return f"there is no field {name}; {hint}"


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise ValueError(text)
    if kind is tuple:
        value = ast.literal_eval(text)
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return kind(text)


def find_breaches(owner: Any, rules: Mapping[str, Rule], where: str = "") -> List[str]:
    """Return a message for each value of a JSON object that breaks its rule.

    Args:
        owner: Value in the file, which is not an object if the file is damaged.
        rules: Rules by name of the field.
        where: Path of the object in the file, with a dot at its end.
    """
    if not isinstance(owner, dict):
        return [f"{where[:-1]} is {reprlib.repr(owner)}; it must be an object"]
    return [
        f"{where}{name} is {reprlib.repr(owner.get(name))}; it must be {rule.text}"
        for name, rule in rules.items()
        if not rule.accepts(owner.get(name))
    ]
