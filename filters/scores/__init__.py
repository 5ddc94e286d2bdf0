"""Scores of a run: histograms, thresholds, rules, slices. A run and `inspect` share them."""
