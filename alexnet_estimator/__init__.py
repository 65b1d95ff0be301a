"""AlexNet training on Ascend NPUs, GPUs and CPUs with a TensorFlow Estimator."""

__version__ = "1.0.0"
