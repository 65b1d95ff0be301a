"""Queries of the rank and of the number of ranks."""
