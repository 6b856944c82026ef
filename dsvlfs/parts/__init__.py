"""The network's parts, one a file."""
