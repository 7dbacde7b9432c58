"""Answers that were kept, read back and shown."""
