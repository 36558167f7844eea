"""Queries to a teacher over HTTP against the teacher's own throughput, in one run.

The teacher is a process of its own that answers one batch at a time, as one GPU does. Asked to measure itself, it
runs the same batches in a loop, with no HTTP, no image files and nothing to wait for; asked through kdal, it gets
them as PNG in JSON from `ask`, with the ledger in SQLite. Both alternate; the figure is the ratio of the medians.

Teachers: `sleeping` takes 20 ms + 1 ms an image and no CPU (a remote GPU); `resnet18` computes 96 x 96 images on one
CPU thread; `lenet-sized` is so cheap that HTTP and PNG weigh more than it does: it shows what a query costs at most.
Ratios want an idle machine; kdal's CPU time for an image is nearly the same on a busy one, and its inverse is the
rate that it can reach. Run as `python -m benchmarks.teacher_queries`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from PIL import Image
from torch import Tensor

from kdal.processes.child import Child, free_port
from kdal.storage.database import Storage
from kdal.teachers import open_ledger, open_teacher, parse_teacher
from kdal_core.distillation import QueryLedger, ask
from kdal_core.models import build_model

CLASSES = tuple("0123456789")
BATCH = 64
KINDS = {"sleeping": ((32, 32), 2560), "resnet18": ((96, 96), 768), "lenet-sized": ((28, 28), 10240)}
"""Image size and images a measurement, by teacher."""


def forward(kind: str) -> Any:
    """(N, 3, H, W) uint8 -> (N, 10) probabilities: the teacher itself."""
    if kind == "sleeping":

        def sleep(images: Tensor) -> Tensor:
            time.sleep(0.02 + 0.001 * len(images))
            return torch.full((len(images), len(CLASSES)), 1 / len(CLASSES))

        return sleep
    size = KINDS[kind][0]
    model = build_model("resnet18" if kind == "resnet18" else "small_cnn", len(CLASSES), size).eval()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            probabilities: Tensor = model(images.float() / 255).softmax(1)
            return probabilities

    return run


def serve(kind: str, port: int) -> None:
    """The teacher's process."""
    torch.set_num_threads(1)
    teacher, one_at_a_time = forward(kind), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """/health, or /own/<images>: seconds that the teacher alone takes for that many."""
            took = 0.0
            if self.path.startswith("/own/"):
                count = int(self.path.rpartition("/")[2])
                batch = torch.randint(0, 256, (BATCH, 3, *KINDS[kind][0]), dtype=torch.uint8)
                began = time.perf_counter()
                for _ in range(count // BATCH):
                    teacher(batch)
                took = time.perf_counter() - began
            self.answer({"seconds": took})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            arrays = [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in asked["images"]]
            images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
            with one_at_a_time:
                rows = teacher(images)
            self.answer({"probabilities": rows.tolist()})

        def answer(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def measure(kind: str, repeats: int, workers: int) -> dict[str, float]:
    """Images a second: the teacher's own, through kdal, and their ratio; and kdal's CPU time for an image, in ms."""
    size, count = KINDS[kind]
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.teacher_queries", "--serve", kind, "--port", str(port)]
    own, through, cpu = [], [], []
    with tempfile.TemporaryDirectory() as scratch, Child("teacher", command, log=Path(scratch) / "log") as server:
        server.wait_until_healthy(f"http://127.0.0.1:{port}/health", timeout=600)
        settings = {"kind": "http", "url": f"http://127.0.0.1:{port}/", "classes": CLASSES}
        teacher = open_teacher(parse_teacher(settings | {"batch_size": BATCH, "workers": workers}))
        storage = Storage(f"sqlite:///{scratch}/kdal.sqlite")
        ledger = QueryLedger(10**9, store=open_ledger(storage, kind, teacher, kind))
        generator = torch.Generator().manual_seed(0)
        for repeat in range(repeats + 1):
            alone = requests.get(f"http://127.0.0.1:{port}/own/{count}", timeout=600).json()["seconds"]
            # Every other row black: noise alone is larger as a PNG than any image.
            images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
            images[:, :, ::2] = 0
            began, worked = time.perf_counter(), time.process_time()
            ask(teacher, images, ledger)
            took, worked = time.perf_counter() - began, time.process_time() - worked
            if repeat > 0:  # the first is to warm up
                own.append(count / alone)
                through.append(count / took)
                cpu.append(1000 * worked / count)
        storage.close()
    a, b = statistics.median(own), statistics.median(through)
    worked = statistics.median(cpu)
    return {"own": round(a, 1), "through_kdal": round(b, 1), "ratio": round(b / a, 3), "cpu_ms": round(worked, 3)}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("artifacts/teacher_queries.json"))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.serve:
        serve(options.serve, options.port)
        return
    report = {}
    for kind in options.kinds:
        report[kind] = measure(kind, options.repeats, options.workers)
        print(f"{kind}: own {report[kind]['own']:,.0f} images/s, through kdal {report[kind]['through_kdal']:,.0f}, "
              f"ratio {report[kind]['ratio']:.2f}; kdal's CPU {report[kind]['cpu_ms']:.2f} ms an image")  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
