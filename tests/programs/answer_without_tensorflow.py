"""Run a command line; end with an error if that has loaded TensorFlow."""

import sys

from alexnet_estimator.__main__ import main

code = main(sys.argv[1:])
sys.exit(code or "tensorflow" in sys.modules)
