"""Use the package as a notebook does: TensorFlow waits until it is needed."""

import logging
import os
import sys

import alexnet_estimator

sys.ps1 = ">>> "
alexnet_estimator.config_from({"train": {"steps": 1}})
assert "tensorflow" not in sys.modules
assert alexnet_estimator.alexnet
assert "tensorflow" in sys.modules
assert os.environ["KMP_BLOCKTIME"] == "0"
assert logging.getLogger("tensorflow").level == logging.ERROR
