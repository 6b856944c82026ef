"""From photos, masks and names to masks."""
