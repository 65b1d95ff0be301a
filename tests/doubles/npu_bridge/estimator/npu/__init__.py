"""The Estimator, its configuration and its optimizers."""
