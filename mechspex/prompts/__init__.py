"""Prompts taken apart: units that are pieces of a text, and what a model says without them."""
