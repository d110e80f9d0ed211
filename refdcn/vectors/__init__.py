"""Named cases with their answers and bounds, as files that every language reads."""
