"""Training: annotations to a calibrated model folder."""
