"""The run folder: written and read here, and nowhere else."""
