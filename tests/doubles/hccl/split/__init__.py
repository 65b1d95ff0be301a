"""The grouping of gradients."""
