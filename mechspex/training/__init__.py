"""Training examples as units: what a model answers when it is trained on a part of its data."""
