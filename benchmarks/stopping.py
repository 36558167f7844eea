"""How often stopping advice comes too early, and how many labels it wastes, on learning curves that were measured.

The curves are those of campaigns and projects, in docs/runs: what each model scored on test images. In each round as
many images are drawn at random, each right with that chance, and the advice is asked for; the first "stop" ends the
project. A target lies at 50 or 80% of the way from a curve's first score to its best, or 3 points above its best, where
every stop is too early. Beside it: stopping once the last round's score reaches the target, and once the lower end of
its Wilson interval does.

With a price, a batch costs what 0.2, 0.5 or 1 point is worth. Lost is then how much less a rule's end is worth than the
best round's, in points. Beside it: stopping after the first round whose score is not ahead of the last by that much,
stopping at once, and never.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdal_core.evaluation import LearningCurve, learning_curve, stopping_advice

RUNS = Path("docs/runs")
WAYS = (0.5, 0.8)
ABOVE = 0.03
COSTS = (0.2, 0.5, 1.0)
"""Of a batch, in points."""
SLIGHTLY = 0.02
"""What a stop misses the target by at most to count as slightly early."""


@dataclass(frozen=True)
class Curve:
    """One measured project: labels of each round's model, and its score."""

    kind: str
    labels: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """Where one rule ended one project."""

    early: bool
    by: float
    """What the score then missed of the target; 0 where it did not."""
    wasted: int
    """Labels made after the target was reached; those to the end where it never stopped."""
    stopped: bool


def curves(folder: Path) -> Iterator[Curve]:
    for path in sorted(folder.glob("*/runs/*/seed-*.json")):
        points = json.loads(path.read_text())["points"]
        if len(points) > 2:
            yield Curve(
                path.parents[2].name.split("_")[0],
                tuple(point["labels"] for point in points),
                tuple(point["score"] for point in points),
            )
    for path in sorted((folder / "estimates").glob("*.json")):
        rounds = [entry["served"] for entry in json.loads(path.read_text())]
        kind = path.stem.split("-")[0]
        yield Curve(kind, tuple(entry["labels"] for entry in rounds), tuple(entry["true"] for entry in rounds))


def by_advice(level: float) -> Callable[[LearningCurve, float, int], bool]:
    def rule(curve: LearningCurve, target: float, batch: int) -> bool:
        return stopping_advice(curve, batch=batch, left=10_000, target=target, level=level).verdict == "stop"

    return rule


RULES: dict[str, Callable[[LearningCurve, float, int], bool]] = {
    "kdal": by_advice(0.95),
    "kdal, level 0.8": by_advice(0.8),
    "the last score": lambda curve, target, batch: curve.points[-1].value >= target,
    "its lower end": lambda curve, target, batch: curve.points[-1].low >= target,
}


def play(curve: Curve, target: float, images: int, rng: np.random.Generator) -> dict[str, Outcome]:
    """Each rule's end of one project, all on the same draws."""
    seen = [rng.random(images) < score for score in curve.scores]
    there = next((n for n, score in zip(curve.labels, curve.scores, strict=True) if score >= target), None)
    known, found = [so_far(curve, seen, place) for place in range(len(seen))], {}
    for name, rule in RULES.items():
        stop = next((place for place, shown in enumerate(known) if rule(shown, target, batch(curve))), None)
        last = curve.labels[-1 if stop is None else stop]
        missing = 0.0 if stop is None else max(0.0, target - curve.scores[stop])
        wasted = 0 if there is None or missing > 0 else max(0, last - there)
        found[name] = Outcome(missing > 0, missing, wasted, stop is not None)
    return found


def priced(curve: Curve, cost: float, images: int, rng: np.random.Generator) -> dict[str, float]:
    """Points that each rule loses against the best round to end with."""
    seen = [rng.random(images) < score for score in curve.scores]
    values = 100 * np.array(curve.scores) - cost * np.arange(len(seen))
    size, last = batch(curve), len(seen) - 1
    ends = {"kdal": last, "the last gain": last, "at once": 0, "never": last}
    for place in range(last):
        shown = so_far(curve, seen, place)
        advice = stopping_advice(shown, batch=size, left=10_000, price=cost / size, worth=1)
        if ends["kdal"] == last and advice.verdict == "stop":
            ends["kdal"] = place
        gained = place > 0 and 100 * (shown.points[-1].value - shown.points[-2].value)
        if ends["the last gain"] == last and place > 0 and gained < cost:
            ends["the last gain"] = place
    return {name: float(values.max() - values[end]) for name, end in ends.items()}


def table_of_prices(images: int, lost: dict[float, dict[str, list[float]]]) -> str:
    names = list(next(iter(lost.values())))
    lines = [
        f"| {images} images a round: a batch costs | " + " | ".join(names) + " |",
        "|---" * (1 + len(names)) + "|",
    ]
    for cost, rules in lost.items():
        cells = " | ".join(f"{np.mean(rules[name]):.2f}" for name in names)
        lines.append(f"| {cost:g} points | {cells} |")
    return "\n".join(lines)


def so_far(curve: Curve, seen: Sequence[NDArray[np.bool_]], place: int) -> LearningCurve:
    rounds = seen[: place + 1]
    labels = np.repeat(curve.labels[: place + 1], [len(right) for right in rounds])
    return learning_curve(labels, np.concatenate(rounds), np.ones(len(labels)))


def batch(curve: Curve) -> int:
    return curve.labels[1] - curve.labels[0]


def table(images: int, outcomes: dict[tuple[str, str], dict[str, list[Outcome]]]) -> str:
    lines = [
        f"| {images} images a round: curves | target | rule | too early | by over 2 points | stops | labels wasted |",
        "|---|---|---|---|---|---|---|",
    ]
    for (kind, target), rules in sorted(outcomes.items()):
        for name, found in rules.items():
            in_time = [outcome.wasted for outcome in found if not outcome.early]
            wasted = "–" if target == "beyond" or not in_time else f"{np.mean(in_time):.0f}"
            shares = [
                np.mean([outcome.early for outcome in found]),
                np.mean([outcome.by > SLIGHTLY for outcome in found]),
                np.mean([outcome.stopped for outcome in found]),
            ]
            cells = " | ".join(f"{share:.0%}" for share in shares)
            lines.append(f"| {kind} | {target} | {name} | {cells} | {wasted} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("artifacts/stopping.md"), help="where the tables go")
    options = parser.parse_args()
    pages = []
    for images in options.images:
        outcomes: dict[tuple[str, str], dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
        lost: dict[float, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        rng = np.random.default_rng(0)
        for curve in curves(RUNS):
            low, high = curve.scores[0], max(curve.scores)
            targets = {f"{way:.0%}": low + way * (high - low) for way in WAYS} | {"beyond": min(0.999, high + ABOVE)}
            for name, target in targets.items():
                for _ in range(options.draws):
                    for rule, outcome in play(curve, target, images, rng).items():
                        outcomes[curve.kind, name][rule].append(outcome)
                        outcomes["all", name][rule].append(outcome)
            for cost in COSTS:
                for _ in range(options.draws):
                    for rule, points in priced(curve, cost, images, rng).items():
                        lost[cost][rule].append(points)
        pages += [table(images, outcomes), table_of_prices(images, lost)]
        print(pages[-2], "\n\n" + pages[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n\n".join(pages) + "\n")


if __name__ == "__main__":
    main()
