"""The Estimator and what belongs to it."""
