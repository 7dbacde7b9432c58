"""Runs: every value ever measured, kept in a folder, and the answers that rest on them."""
