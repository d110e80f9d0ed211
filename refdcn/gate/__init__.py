"""A gate for many candidates: graded side by side, each with a score."""
