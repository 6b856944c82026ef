"""The page on which a person looks labels over."""
