"""AlexNet training on Ascend NPUs, GPUs and CPUs with a TensorFlow Estimator."""

__version__ = "0.1.0"
