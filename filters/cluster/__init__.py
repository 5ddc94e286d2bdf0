"""Runs on clusters: phases as tasks of Slurm or Ray."""
