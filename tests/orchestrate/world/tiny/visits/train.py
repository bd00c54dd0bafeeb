"""The model."""

from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from windrow import columns


def model():
    """Return the unfitted pipeline."""
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), columns("plan")), remainder="passthrough"
    )
    return make_pipeline(encode, LogisticRegression(max_iter=500))
