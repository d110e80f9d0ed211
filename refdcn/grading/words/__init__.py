"""Every English sentence of a grade: records become words here and nowhere else."""
