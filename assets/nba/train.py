"""The nba model: a line through forms, calibrated by the method that validation games speak for."""

from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

METHODS = ("none", "sigmoid", "isotonic")


def learner(strength=0.01):
    """Return the unfitted, uncalibrated model; few games and many forms that say the same ask for a small strength."""
    # Before a team's first game there is no form: the mean stands in for it.
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=strength))


def calibrated(model, method):
    """Return `model` unfitted, calibrated by a method on games that are later than those it learns from."""
    fresh = clone(model)
    return fresh if method == "none" else CalibratedClassifierCV(fresh, method=method, cv=TimeSeriesSplit(4))


def briers(model, X, y, *, validation=0.25):
    """Return each method's Brier score on the last `validation` of the games, learned from those before; oldest first."""
    cut = round(len(y) * (1 - validation))
    fitted = {method: calibrated(model, method).fit(X[:cut], y[:cut]) for method in METHODS}
    return {method: brier_score_loss(y[cut:], one.predict_proba(X[cut:])[:, 1]) for method, one in fitted.items()}
