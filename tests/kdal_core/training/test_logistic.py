import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from kdal_core.training.logistic import best_decay, fit_logistic, linear, softmax, stratified_folds


def data(size=200):
    pixels, classes = load_digits(return_X_y=True)
    return (pixels[:size] / 50).astype(np.float32), classes[:size]


def test_it_is_the_regression_of_scikit_learn():
    features, classes = data()
    values = fit_logistic(features, np.eye(10)[classes], np.ones(200), 1e-3, steps=500)
    theirs = LogisticRegression(C=1 / (1e-3 * 200), max_iter=2000, tol=1e-8).fit(features, classes)
    np.testing.assert_allclose(softmax(linear(values, features)), theirs.predict_proba(features), atol=0.01)


def test_weights_count_as_copies_do():
    features, classes = data()
    copies = np.random.default_rng(0).integers(1, 4, 200)
    targets = np.eye(10)[classes]
    weighed = fit_logistic(features, targets, copies, 1e-3, steps=500)
    copied = fit_logistic(
        features.repeat(copies, axis=0), targets.repeat(copies, axis=0), np.ones(copies.sum()), 1e-3, steps=500
    )
    np.testing.assert_allclose(softmax(linear(weighed, features)), softmax(linear(copied, features)), atol=0.01)


def test_soft_targets_are_met_where_they_can_be():
    """The gradient of the bias is the mean of what is said less the mean of what is wanted."""
    features, _ = data()
    targets = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    said = softmax(linear(fit_logistic(features, targets, np.ones(200), 1e-4, steps=500), features))
    np.testing.assert_allclose(said.mean(axis=0), targets.mean(axis=0), atol=2e-3)


def test_a_class_that_no_target_names_keeps_a_finite_bias():
    features, _ = data(20)
    values = fit_logistic(features, np.eye(3)[np.zeros(20, dtype=int)], np.ones(20), 1e-4, steps=2000)
    assert np.abs(values).max() < 30


def test_the_decay_is_chosen_by_what_is_said_of_labels_left_out():
    features, classes = data()
    folds = stratified_folds(classes, 5, np.random.default_rng(0))
    assert best_decay(features, classes, folds, 10, (1e2, 1e-3))[0] == 1e-3
    noise = np.random.default_rng(0).integers(0, 10, 200)
    assert best_decay(features, noise, folds, 10, (1e2, 1e-5))[0] == 1e2


def test_what_is_said_of_a_label_is_said_without_it():
    """By fits of the other folds alone, from scikit-learn."""
    features, classes = data()
    folds = stratified_folds(classes, 4, np.random.default_rng(0))
    said = best_decay(features, classes, folds, 10, (1e-3,))[1]
    for fold in range(4):
        out = folds == fold
        model = LogisticRegression(C=1 / (1e-3 * (~out).sum()), max_iter=2000).fit(features[~out], classes[~out])
        np.testing.assert_allclose(said[out], model.predict_proba(features[out]), atol=0.02)


def test_folds_hold_as_many_of_each_class_as_can_be():
    classes = np.repeat([0, 1, 2], [40, 11, 1])
    folds = stratified_folds(classes, 5, np.random.default_rng(0))
    assert np.bincount(folds).tolist() in [[11, 11, 10, 10, 10]]
    assert np.bincount(folds[classes == 0]).tolist() == [8] * 5
    assert sorted(np.bincount(folds[classes == 1], minlength=5).tolist()) == [2, 2, 2, 2, 3]
