"""The fraud model: boosted trees, which take what is missing as it is."""

from sklearn.ensemble import HistGradientBoostingClassifier


def model(*, trees=80, rate=0.08, seed=0):
    """Return the unfitted trees; windrow fits them, on the training split only."""
    return HistGradientBoostingClassifier(
        max_iter=trees, learning_rate=rate, max_leaf_nodes=8, min_samples_leaf=40, random_state=seed
    )
