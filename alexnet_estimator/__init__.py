"""AlexNet training on Ascend NPUs, GPUs and CPUs with a TensorFlow Estimator.

The functions behind the command line, for programs and notebooks::

    import alexnet_estimator as alexnet

    config = alexnet.load_config_file("configs/tiny.py")
    config.data.path = "photos/"
    run = alexnet.open_run(config, "runs/photos")
    print(alexnet.train(run)["top_1_accuracy"])
    classifier = alexnet.open_classifier("runs/photos")
    alexnet.predict(classifier, ["new photos/"], "answers.csv")

| topic | names |
|---|---|
| configuration | ``default_config``, ``config_from``, ``load_config_file`` |
| data | ``convert``, ``open_dataset``, ``verify`` |
| runs | ``open_run``, ``train``, ``evaluate``, ``export``, ``write_report`` |
| speed | ``benchmark``, ``BenchmarkRequest`` |
| predictions | ``open_classifier``, ``predict``; ``find_sources``, ``classify`` |
| input | ``Reader``, ``train_batches``, ``eval_batches``, ``normalise`` |
| model function | ``build_model_fn``, ``Training`` |
| networks | ``alexnet``, ``build_logits``; ``Network``, ``find_network`` |
| output | ``be_quiet`` |

``tf`` is the interface of TensorFlow 1 that this package uses with both supported
releases, 1.15 and 2.15.

``help(alexnet_estimator.train)`` describes a function, and ``examples/python_api.py``
uses most of them.  Errors that a user can correct are raised as
``alexnet_estimator.errors.UserError``.  Each function's module is imported when the
function is first used, because importing TensorFlow takes seconds.
"""

import importlib
import sys
from typing import Any, List

__version__ = "1.0.0"

_MODULES = {
    "config": ("config_from", "default_config"),
    "config_file": ("load_config_file",),
    "console": ("be_quiet",),
    "inputs": ("Reader", "eval_batches", "normalise", "train_batches"),
    "engine.graph_mode": ("tf",),
    "jobs.benchmark.job": ("benchmark",),
    "jobs.benchmark.request": ("BenchmarkRequest",),
    "jobs.predict.classifier": ("open_classifier",),
    "jobs.evaluate": ("evaluate",),
    "jobs.export.job": ("export",),
    "jobs.predict.job": ("classify", "predict"),
    "jobs.predict.sources": ("find_sources",),
    "jobs.session": ("open_run",),
    "jobs.train": ("train",),
    "model_fn": ("Training", "build_model_fn"),
    "networks": ("Network", "find_network"),
    "networks.alexnet_graph": ("alexnet",),
    "networks.graphs": ("build_logits",),
    "records": ("open_dataset",),
    "records.convert": ("convert",),
    "records.verify": ("verify",),
    "report": ("write_report",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)  # noqa: F822


def __getattr__(name: str) -> Any:
    """Import a function of the programming interface (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    is_first = "tensorflow" not in sys.modules
    launch = importlib.import_module(f"{__name__}.launch")
    if is_first:
        launch.prepare_tensorflow()
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    if is_first:
        # In a notebook, importing TensorFlow has reset the filters of its warnings.
        launch.prepare_tensorflow()
    return getattr(module, name)


def __dir__() -> List[str]:
    """Return all names of the module for tab completion."""
    return sorted({*globals(), *__all__})
