"""Why a model answered as it did: Shapley values, anchors and counterfactuals, made beside the requests.

`windrow.serving.explaining.explain.explain` is the whole of it without HTTP and without another process.
"""
