"""The only thing the pipeline knows of a classifier: a model folder, loaded and verified, that scores texts."""

from filters.model.folder import KeepRule
from filters.model.quality import Calibration, Prediction, QualityModel, predict_together
from filters.model.reliability import ConformalTable, Decisions

__all__ = [
    "Calibration",
    "ConformalTable",
    "Decisions",
    "KeepRule",
    "Prediction",
    "QualityModel",
    "predict_together",
]
