"""How gradients are grouped."""
