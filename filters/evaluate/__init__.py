"""Evaluation: reports of a model against labels, probes, baselines, the quality gate."""
