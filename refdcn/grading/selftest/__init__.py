"""The grader graded."""
