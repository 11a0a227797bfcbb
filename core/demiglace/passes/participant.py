"""A pass at work inside a training loop."""
