"""kdal_core: the methods. Knows torch, torchvision, numpy, scikit-learn; never HTTP, SQL, S3, Label Studio.

Read it from the bottom up: `losses`, `metrics` and `models` are plain torch; `tasks` says what is labelled;
`training` is the one loop and the trio of models; `acquisition` turns the trio's disagreement into an order.
"""
