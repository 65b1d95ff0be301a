"""Measurements beside peers; see ``docs/performance.md``.  Not part of the package."""
