"""Experiments on models and functions whose truth is known."""
