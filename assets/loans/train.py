"""The loans model, and two ways not to learn from it what the bank did to women."""

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def pipeline(*, words, without=(), trees=60):
    """Return the unfitted model: one-hot for `words`, the columns `without` left out, boosted trees on the rest."""
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encode = make_column_transformer((one_hot, list(words)), ("drop", list(without)), remainder="passthrough")
    boosted = HistGradientBoostingClassifier(max_iter=trees, learning_rate=0.08, max_leaf_nodes=6, random_state=0)
    return make_pipeline(encode, boosted)


def reweighed(group, label):
    """Return weights under which group and label are independent (Kamiran and Calders, 2012), shape (n,)."""
    weights = np.ones(len(label))
    for one in np.unique(group):
        for value in np.unique(label):
            inside, outcome = group == one, label == value
            both = inside & outcome
            weights[both] = inside.mean() * outcome.mean() / both.mean()
    return weights
