"""Frozen bases and checkpoints as files."""
