"""How well a model does, and what it costs."""
