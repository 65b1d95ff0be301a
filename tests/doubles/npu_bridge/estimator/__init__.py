"""The operators and the Estimator of the stand-in."""
