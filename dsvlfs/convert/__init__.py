"""Others' checkpoints to ours."""
