"""A model's parts for other engines."""
