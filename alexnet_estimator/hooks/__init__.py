"""What happens around every step: guard, progress, metrics and saving."""
