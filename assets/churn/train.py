"""The churn model: one-hot for words, numbers as they are, boosted trees."""

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from windrow import columns

WORDS = columns(
    "contract", "paperless", "payment_method", "partner", "dependents", "internet", "lines", "security", "support"
)


def model():
    """Return the unfitted pipeline; windrow fits it, on the training split only."""
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), WORDS), remainder="passthrough"
    )
    trees = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.06, max_leaf_nodes=8, random_state=0)
    return make_pipeline(encode, trees)
