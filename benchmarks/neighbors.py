"""kdal's neighbour search beside faiss: exact against its flat index, approximate against its inverted file.

Both sides of a ratio get the same points, in one process, one after the other, with as many threads. Each case
runs in a process of its own, whose peak memory is reported. Run as `python -m benchmarks.neighbors`; with
`--million` also the inverted file at a million points, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from kdal_core.acquisition.inverted_file import build_inverted_file, search_inverted_file
from kdal_core.acquisition.neighbors import neighbor_search


def pool(kind: str, size: int, dimensions: int) -> NDArray[np.float32]:
    """(N, D): one Gaussian, or a mixture of 1,000 whose centres are as far spread as their points."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((size, dimensions), dtype=np.float32)
    if kind == "clustered":
        centres = rng.standard_normal((1000, dimensions), dtype=np.float32)
        for start in range(0, size, 10_000):
            part = points[start : start + 10_000]
            part += centres[rng.integers(0, 1000, len(part))]
    return points


def overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]) / truth.shape[1])


def without_self(found: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    others = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(found, others, axis=1)


def memory_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exact(kind: str, size: int, dimensions: int, k: int, repeats: int) -> dict[str, Any]:
    """Our exact search beside IndexFlatL2; medians of `repeats` alternating runs."""
    points = pool(kind, size, dimensions)
    ours, theirs = [], []
    peak = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        result = neighbor_search(points, k, method="exact", device="cpu")
        ours.append(time.perf_counter() - began)
        peak = peak or memory_mb()
        began = time.perf_counter()
        index = faiss.IndexFlatL2(dimensions)
        index.add(points)
        found = index.search(points, k + 1)[1]
        theirs.append(time.perf_counter() - began)
    agreement = overlap(result.indices, without_self(found, np.arange(size)))
    seconds, other = float(np.median(ours)), float(np.median(theirs))
    return {"kdal_s": seconds, "faiss_s": other, "recall": result.recall, "faiss_overlap": agreement, "peak_mb": peak}


def approximate(kind: str, size: int, dimensions: int, k: int, repeats: int) -> dict[str, Any]:
    """Our inverted file beside faiss's own, with as many lists, training points and lists searched."""
    points = pool(kind, size, dimensions)
    base = memory_mb()
    began = time.perf_counter()
    file = build_inverted_file(points, k)
    built = time.perf_counter() - began
    began = time.perf_counter()
    result = search_inverted_file(points, file, k)
    searched = time.perf_counter() - began
    peak = memory_mb()
    nprobe, lists, recall = file.nprobe, file.index.nlist, file.recall
    del file
    began = time.perf_counter()
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimensions), dimensions, lists)
    index.cp.max_points_per_centroid, index.cp.seed = 48, 0
    index.train(points[: 48 * lists])
    index.add(points)
    index.nprobe = nprobe
    plain_built = time.perf_counter() - began
    began = time.perf_counter()
    found = index.search(points, k + 1)[1]
    plain_searched = time.perf_counter() - began
    rows = np.sort(np.random.default_rng(9).choice(size, min(size, 1000), replace=False))  # not those of tuning
    truth = without_self(faiss.knn(points[rows], points, k + 1)[1], rows)
    return {
        "kdal_s": built + searched,
        "faiss_s": plain_built + plain_searched,
        "kdal_search_s": searched,
        "faiss_search_s": plain_searched,
        "recall": overlap(result[rows], truth),
        "recall_reported": recall,
        "faiss_recall": overlap(without_self(found[rows], rows), truth),
        "nprobe": nprobe,
        "lists": lists,
        "features_mb": base,
        "peak_mb": peak,
    }


def child(pipe: Any, case: Any, threads: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    pipe.send(case(*arguments))


def alone(case: Any, threads: int, *arguments: Any) -> dict[str, Any]:
    """One case in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there, case, threads, arguments))
    process.start()
    there.close()
    try:
        report: dict[str, Any] = here.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{case.__name__} ended with exit code {process.exitcode}.") from None
    process.join()
    return report


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--million", action="store_true", help="also the inverted file at --large points")
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--large-dimensions", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("artifacts/neighbors.json"))
    options = parser.parse_args()
    cases = [(exact, kind, options.size, options.dimensions) for kind in ("clustered", "gaussian")]
    if options.million:
        cases.append((approximate, "clustered", options.large, options.large_dimensions))
    print(f"faiss {faiss.__version__}, torch {torch.__version__}, {options.threads} threads, k = {options.k}\n")
    print("| search | points | kdal, s | faiss, s | ratio | recall | faiss's | peak MB |\n|" + 8 * "---|")
    report: dict[str, Any] = {"faiss": faiss.__version__, "torch": torch.__version__, "threads": options.threads}
    for case, kind, size, dimensions in cases:
        name = f"{case.__name__}, {kind}"
        row = alone(case, options.threads, kind, size, dimensions, options.k, options.repeats)
        row["ratio"] = row["kdal_s"] / row["faiss_s"]
        report[name] = {"size": size, "dimensions": dimensions, "k": options.k, **row}
        theirs = row.get("faiss_recall", row.get("faiss_overlap"))
        print(
            f"| {name} | {size} x {dimensions} | {row['kdal_s']:.1f} | {row['faiss_s']:.1f} | {row['ratio']:.2f} "
            f"| {row['recall']:.4f} | {theirs:.4f} | {row['peak_mb']:.0f} |",
            flush=True,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
