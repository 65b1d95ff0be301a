"""Operators and the Estimator."""
