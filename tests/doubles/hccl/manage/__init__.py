"""Queries of ranks."""
