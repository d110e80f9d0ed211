"""What a report shows of the worst case: measured while the candidate still answers."""
