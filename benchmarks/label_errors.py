"""How many of the first 20 labels shown are wrong, where 5 or 10% of the labels were replaced.

Each FILE.npz holds features of photos by name, (N, D) each, `labels` (N,) and `classes`; the digits' pixels stand for
features of their own. Labels are replaced by any other class (uniform), or by the one that models out of fold find
likeliest among the others (confused): the mistakes that people make, too. Photos have wrong labels of their own, which
count as right here.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimate_projects import sets
from kdal_core.acquisition import label_noise
from kdal_core.evaluation import label_errors
from kdal_core.metrics import class_gap
from kdal_core.simulation.curves import interval
from kdal_core.training import HeadPool

SHOWN = 20
SHARES = (0.05, 0.1)
KINDS = ("uniform", "confused")
PLAIN = "self-confidence"
"""The usual ranking of confident learning, which the others are held against."""

Indices = NDArray[np.int64]


def spoilt(
    truth: Indices, classes: int, share: float, likely: NDArray[np.float32] | None, rng: np.random.Generator
) -> tuple[Indices, NDArray[np.bool_]]:
    """Labels of which a share is wrong, and which these are."""
    wrong = np.zeros(len(truth), dtype=bool)
    wrong[rng.choice(len(truth), round(share * len(truth)), replace=False)] = True
    if likely is None:
        others = (truth + rng.integers(1, classes, len(truth))) % classes
    else:
        rest = likely.copy()
        rest[np.arange(len(truth)), truth] = -1
        others = rest.argmax(axis=1)
    return np.where(wrong, others, truth), wrong


def found(
    pool: HeadPool, student: NDArray[Any], given: Indices, wrong: NDArray[np.bool_], classes: int
) -> dict[str, float]:
    """Share of wrong labels among the first shown, by each ranking, as far as there are as many wrong ones."""
    rows = np.arange(len(given))
    said, trio = pool.out_of_fold(rows, given, classes), pool.fit(rows, given, classes)
    distilled, alone = trio.distilled.probabilities(student[rows]), trio.student.probabilities(student[rows])
    teacher = trio.teacher[rows]
    margin = said.copy()
    margin[rows, given] = -1
    orders: dict[str, Sequence[int] | Indices] = {
        "kdal": label_errors(given, said, [teacher]).order,
        "without the teacher": label_errors(given, said).order,
        PLAIN: np.argsort(said[rows, given], kind="stable"),
        "normalised margin": np.argsort(said[rows, given] - margin.max(axis=1), kind="stable"),
        "min(D_SS, D_ST)": np.argsort(
            -label_noise(class_gap(distilled, alone), class_gap(distilled, teacher)), kind="stable"
        ),
    }
    count = min(SHOWN, int(wrong.sum()))
    return {name: float(wrong[order[:SHOWN]].sum()) / count for name, order in orders.items()}


def table(rows: dict[tuple[str, int, str, float], dict[str, list[float]]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [
        "| images | labels | mistakes | wrong | " + " | ".join(names) + f" | kdal − {PLAIN} |",
        "|---" * (5 + len(names)) + "|",
    ]
    gains: list[float] = []
    for (images, labels, kind, share), scores in rows.items():
        gain = [100 * (a - b) for a, b in zip(scores["kdal"], scores[PLAIN], strict=True)]
        gains += gain
        means = " | ".join(f"{np.mean(scores[name]):.0%}" for name in names)
        lines.append(f"| {images} | {labels} | {kind} | {share:.0%} | {means} | {plus_minus(gain)} |")
    means = " | ".join(f"{np.mean([np.mean(scores[name]) for scores in rows.values()]):.1%}" for name in names)
    lines.append(f"| all | | | | {means} | {plus_minus(gains)} |")
    return "\n".join(lines)


def plus_minus(gain: list[float]) -> str:
    mean = interval(gain)
    assert mean is not None
    return f"{mean.mean:+.0f}" + ("" if mean.half_width is None else f" ± {mean.half_width:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--labels", type=int, nargs="+", default=[200, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 105)))
    parser.add_argument("--out", type=Path, default=Path("artifacts/label_errors.md"), help="where the table goes")
    options = parser.parse_args()
    rows: dict[tuple[str, int, str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name, labels, classes, student, teacher in sets(options.files):
            chosen = np.random.default_rng(seed).permutation(len(labels))[: 2 * len(labels) // 3]
            pool = HeadPool(student[chosen], [kind[chosen] for kind in teacher], seed=seed)
            for count in options.labels:
                truth = labels[chosen[:count]]
                likely = pool.out_of_fold(np.arange(count), truth, classes)
                for kind in KINDS:
                    for share in SHARES:
                        rng = np.random.default_rng([seed, count, round(100 * share)])
                        given, wrong = spoilt(truth, classes, share, likely if kind == "confused" else None, rng)
                        for ranking, score in found(pool, student[chosen], given, wrong, classes).items():
                            rows[name, count, kind, share][ranking].append(score)
            options.out.write_text(table(rows) + "\n")
            options.out.with_suffix(".json").write_text(json.dumps([[*key, scores] for key, scores in rows.items()]))
            print(seed, name, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
