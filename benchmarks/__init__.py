"""Comparisons with other programs, see ``docs/performance.md``; not installed."""
