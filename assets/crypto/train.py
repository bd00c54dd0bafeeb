"""The crypto model: a line through the moves, missing ones taken as none."""

from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def model():
    """Return the unfitted pipeline; windrow fits it, on the training split only."""
    # A move that cannot be computed (the first minutes, a gap without trades) counts as no move.
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), StandardScaler(), LogisticRegression())
