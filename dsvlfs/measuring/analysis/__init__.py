"""What the paper asks and leaves open, each question a module whose `run` measures and returns a `Report`."""
