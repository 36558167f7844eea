"""Draw the figures of docs/concepts.md with kdal_core itself, on data that takes seconds: `make docs`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from kdal_core.acquisition import PoolScores, strategy, uncertainty
from kdal_core.evaluation import calibrated, fit_temperature, learning_curve, stopping_advice

FOLDER = Path(__file__).with_name("pictures") / "concepts"
INK, GREY, TEAL, ORANGE = "#37474f", "#b0bec5", "#00897b", "#e65100"
STEPS = (
    ("label", "people label\nthe next tasks\nin the order"),
    ("count", "events hint, the\nlabels are counted\nby the API"),
    ("train", "student S,\nteacher T,\ndistilled S-KD"),
    ("check", "a model that is\nworse beyond chance\ndoes not serve"),
    ("order", "the pool is scored,\nthe next batch\nchosen"),
    ("publish", "suggestions and\norder change\nin one switch"),
)


def main() -> None:
    """All figures, on white: they are read on light and dark pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "kdal", "svg.fonttype": "path", "font.size": 9, "text.color": INK})
    mpl.rcParams.update({"axes.edgecolor": GREY, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK})
    for draw in (loop, gaps, coverage, estimates, calibration):
        figure = draw()
        figure.savefig(FOLDER / f"{draw.__name__}.svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def loop() -> Figure:
    """What follows on what."""
    figure, axes = plt.subplots(figsize=(8, 2.8))
    axes.set(xlim=(-0.6, 5.6), ylim=(-1.35, 0.75))
    axes.axis("off")
    for i, (name, what) in enumerate(STEPS):
        colour = ORANGE if name == "label" else TEAL
        axes.scatter(i, 0.3, s=900, color=colour, zorder=2)
        axes.text(i, 0.3, str(i + 1), color="white", ha="center", va="center", fontsize=13, fontweight="bold")
        axes.text(i, -0.12, name, ha="center", va="center", fontweight="bold")
        axes.text(i, -0.24, what, ha="center", va="top", fontsize=7.5)
        if i:
            axes.annotate("", (i - 0.22, 0.3), (i - 0.78, 0.3), arrowprops={"arrowstyle": "->", "color": INK})
    back = {"arrowstyle": "->", "color": INK, "connectionstyle": "bar,fraction=-0.09", "linestyle": "--"}
    axes.annotate("", (0, -0.85), (5, -0.85), arrowprops=back)
    axes.text(2.5, -1.2, "people go on in the last order until the new one is there", ha="center", fontsize=8)
    return figure


def moons() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Points (N, 2), their classes (N,), and the rows of the labelled ones."""
    points, classes = make_moons(500, noise=0.22, random_state=3)
    labelled = np.concatenate([np.flatnonzero(classes == c)[:5] for c in (0, 1)])
    return points, classes, labelled


def trio() -> tuple[NDArray[np.float64], ...]:
    """Each model's probabilities of the points of `moons`, and of a grid: a linear S, a network T, a linear S-KD."""
    points, classes, labelled = moons()
    student = LogisticRegression().fit(points[labelled], classes[labelled])
    teacher = MLPClassifier((64, 64), solver="lbfgs", alpha=0.1, random_state=0, max_iter=2000)
    teacher.fit(points[labelled], classes[labelled])
    said = teacher.predict_proba(points)[:, 1]
    both = np.concatenate([points, points])
    soft = np.concatenate([np.ones(len(points)), np.zeros(len(points))])
    distilled = LogisticRegression().fit(both, soft, sample_weight=np.concatenate([said, 1 - said]))
    grid = np.stack(np.meshgrid(np.linspace(-2, 3, 120), np.linspace(-1.5, 2, 120)), axis=-1).reshape(-1, 2)
    models = (student, teacher, distilled)
    return (*(m.predict_proba(points)[:, 1] for m in models), grid, *(m.predict_proba(grid)[:, 1] for m in models))


def gaps() -> Figure:
    """Where the three models disagree, and what is therefore labelled next."""
    points, classes, labelled = moons()
    s, t, kd, grid, s_grid, t_grid, kd_grid = trio()
    found = strategy("kd_gap")(PoolScores(d_ss=np.abs(kd - s), d_st=np.abs(kd - t), features=points, budget=8))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), sharey=True)
    for values, colour, name in ((s_grid, INK, "S"), (t_grid, TEAL, "T"), (kd_grid, ORANGE, "S-KD")):
        left.contour(*_square(grid), values.reshape(120, 120), levels=[0.5], colors=[colour], linewidths=1.6)
        left.plot([], [], color=colour, label=name)
    _points(left, points, classes, labelled)
    left.legend(loc="lower left", framealpha=0.95, edgecolor="none")
    left.set_title("three models, ten labels", fontsize=9)
    unsure = uncertainty(np.abs(kd_grid - s_grid), np.abs(kd_grid - t_grid)).reshape(120, 120)
    right.contourf(*_square(grid), unsure, levels=12, cmap="Oranges", alpha=0.8)
    picks = found.indices[:8]
    right.scatter(*_xy(points), s=5, color=GREY)
    right.scatter(*_xy(points[picks]), s=42, color=INK, marker="x", label="asked next")
    right.legend(frameon=False, loc="lower left")
    right.set_title("where they disagree", fontsize=9)
    return figure


def coverage() -> Figure:
    """A batch that is only unsure, and one that stands for the pool as well."""
    points, classes, labelled = moons()
    s, t, kd, *_ = trio()
    probabilities = np.stack([1 - kd, kd], axis=1)
    pool = np.setdiff1d(np.arange(len(points)), labelled)
    scores = PoolScores(
        d_ss=np.abs(kd - s)[pool],
        d_st=np.abs(kd - t)[pool],
        probabilities=probabilities[pool],
        features=points[pool],
        teacher_features=points[pool],
        labelled_teacher_features=points[labelled],
        budget=8,
    )
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.1), sharey=True)
    for axes, name, title in zip(
        panels,
        ("entropy", "kd_gap"),
        ("the eight most uncertain", "kd_gap: unsure, and unlike each other"),
        strict=True,
    ):
        _points(axes, points, classes, labelled)
        axes.scatter(*_xy(points[pool][strategy(name)(scores).indices[:8]]), s=42, color=INK, marker="x")
        axes.set_title(title, fontsize=9)
    return figure


def estimates() -> Figure:
    """A curve from labels that were drawn at random, and the advice that stands on it."""
    drawn = np.random.default_rng(5)
    labels = np.repeat(np.arange(50, 751, 50), 12)
    truth = 1 - 0.06 - 0.34 * (labels / 50) ** -0.6
    curve = learning_curve(labels, (drawn.random(len(labels)) < truth).astype(float), np.ones(len(labels), dtype=bool))
    advice = stopping_advice(curve, batch=50, left=2000, target=0.8)
    figure, axes = plt.subplots(figsize=(8, 2.9))
    at = [point.labels for point in curve.points]
    middle = [point.value for point in curve.points]
    ends = [[p.value - p.low for p in curve.points], [p.high - p.value for p in curve.points]]
    axes.errorbar(at, middle, ends, fmt="o", color=TEAL, ecolor=GREY, label="12 images drawn at random, each round")
    axes.plot(np.unique(labels), truth[::12], color=INK, linewidth=1, label="the truth, which nobody sees")
    axes.axhline(0.8, color=ORANGE, linestyle="--", linewidth=1, label="the owner's target")
    axes.set(xlabel="labels", ylabel="accuracy", ylim=(0.2, 1.02))
    axes.legend(frameon=False, loc="lower right")
    sentence = advice.sentence.split(" By ")[0]
    axes.set_title(f"kdal: “{sentence}”", fontsize=9, loc="left")
    return figure


def calibration() -> Figure:
    """How often a model is right that says how sure it is, before and after."""
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    taught, held, rest = order[:80], order[80:230], order[230:]
    model = LogisticRegression(C=300, max_iter=5000).fit(images[taught] / 16, classes[taught])
    column = {int(label): i for i, label in enumerate(model.classes_)}
    right = np.array([column[int(label)] for label in classes])
    told = model.predict_proba(images / 16)
    temperature = fit_temperature(told[held], right[held])
    figure, axes = plt.subplots(figsize=(4.6, 3.1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for values, colour, name in (
        (told, INK, "as the model says"),
        (calibrated(told, temperature), TEAL, "calibrated on 150 held-out labels"),
    ):
        sure, hit = values[rest].max(1), values[rest].argmax(1) == right[rest]
        bins = np.quantile(sure, np.linspace(0, 1, 9))
        places = np.clip(np.searchsorted(bins, sure) - 1, 0, 7)
        axes.plot(
            [sure[places == i].mean() for i in range(8)],
            [hit[places == i].mean() for i in range(8)],
            "o-",
            color=colour,
            label=name,
        )
    axes.axvline(2 / 3, color=ORANGE, linestyle="--", linewidth=1, label="suggestions begin here")
    axes.set(xlabel="how sure", ylabel="how often right", xlim=(0.2, 1.02), ylim=(0.2, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _square(grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return grid[:, 0].reshape(120, 120), grid[:, 1].reshape(120, 120)


def _xy(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return points[:, 0], points[:, 1]


def _points(axes: Axes, points: NDArray[np.float64], classes: NDArray[np.int64], labelled: NDArray[np.int64]) -> None:
    """The pool in grey, the labels in colour."""
    axes.scatter(*_xy(points), s=5, color=GREY)
    for label, colour in ((0, TEAL), (1, ORANGE)):
        axes.scatter(*_xy(points[labelled][classes[labelled] == label]), s=30, color=colour, edgecolor="white")


if __name__ == "__main__":
    main()
