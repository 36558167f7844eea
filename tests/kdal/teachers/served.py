"""A black-box teacher behind a real HTTP server, to be run as a process: `python served.py FOLDER [PORT]`.

It classifies an image by its green value at the upper left: share v/256 "cat", the rest "dog"; a third class "hen"
always gets 0. Every image that it works on is a byte (v) in FOLDER/asked. How it behaves is FOLDER/mode.json, read
at each request: {"seconds": delay, "status": 429, "headers": {...}, "body": text, "answer": name, "times": n,
"drip": seconds between bytes, "break": true, "at_most": requests worked on at once}.
"""

import base64
import io
import json
import math
import sys
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

CLASSES = ("cat", "dog", "hen")


def probabilities(file):
    with Image.open(io.BytesIO(file)) as image:
        pixel = image.getpixel((0, 0))
    value = pixel if isinstance(pixel, int) else pixel[1]
    return value, [value / 256, 1 - value / 256, 0.0]


ANSWERS = {
    "plain": lambda rows: {"probabilities": rows},
    "named": lambda rows: {"predictions": [{"scores": dict(zip(CLASSES, row, strict=True))} for row in rows]},
    "pairs": lambda rows: {
        "out": [
            [{"label": name.upper(), "p": p} for name, p in sorted(zip(CLASSES, row, strict=True), reverse=True)]
            for row in rows
        ]
    },
    "other_order": lambda rows: {"labels": ["hen", "cat", "dog"], "probabilities": [[r[2], r[0], r[1]] for r in rows]},
    "bare": lambda rows: rows[0],
    "logits": lambda rows: {"probabilities": [[9 * p - 4 for p in row] for row in rows]},
    "nan": lambda rows: {"probabilities": [[math.nan, *row[1:]] for row in rows]},
    "too_few": lambda rows: {"probabilities": [row[:2] for row in rows]},
    "too_many": lambda rows: {"probabilities": [[*row, 0.0] for row in rows]},
    "one_short": lambda rows: {"probabilities": rows[1:]},
    "words": lambda rows: {"probabilities": [["a", "b", "c"] for _ in rows]},
    "other_classes": lambda rows: {"predictions": [{"scores": {"ape": 1.0, "dog": 0.0, "hen": 0.0}} for _ in rows]},
    "nothing": lambda rows: {"error": "model is loading"},
    "backend_all": lambda rows: {"results": [prediction(row, meta=True) for row in rows]},
    "backend_best": lambda rows: {"results": [prediction(row) for row in rows]},
    "backend_error": lambda rows: {"results": [{"result": [], "score": 0, "error": "cannot read"} for _ in rows]},
}


def prediction(row, meta=False):
    best = max(range(3), key=row.__getitem__)
    region = {"from_name": "c", "to_name": "i", "type": "choices", "value": {"choices": [CLASSES[best]]}}
    region["score"] = row[best]
    if meta:
        region["meta"] = {"scores": dict(zip(CLASSES, row, strict=True))}
    return {"result": [region], "score": 0.001, "model_version": "v"}


def files_of(headers, body):
    """The image files of a request, whichever form it has."""
    kind = headers.get("Content-Type", "")
    if kind.startswith("image/"):
        return [body]
    if kind.startswith("multipart/"):
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        return [part.get_content() for part in message.iter_parts() if part.get_filename()]
    asked = json.loads(body)
    found = asked.get("images") or asked.get("instances") or [task["data"]["image"] for task in asked["tasks"]]
    texts = [item["b64"] if isinstance(item, dict) else item for item in found]
    return [base64.b64decode(text.partition(",")[2] or text) for text in texts]


class Handler(BaseHTTPRequestHandler):
    """A teacher; another one has another `classify`: file -> (what FOLDER/asked gets of it, probabilities)."""

    protocol_version = "HTTP/1.1"
    lock, served, paid = threading.Lock(), 0, {}

    @staticmethod
    def classify(file):
        value, row = probabilities(file)
        return bytes([value]), row

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mode = json.loads((self.folder / "mode.json").read_text())
        with Handler.lock:
            Handler.served += 1
            with (self.folder / "requests").open("a") as log:
                log.write(
                    json.dumps({"path": self.path, "time": time.monotonic(), "headers": dict(self.headers)}) + "\n"
                )
            if Handler.served > mode.get("times", math.inf):
                mode = {}
        if mode.get("status", 200) in (429, 503, 401, 302, 404) or "body" in mode:
            return self.send(mode, mode.get("body", "no").encode())
        rows = [self.classify(file) for file in files_of(self.headers, body)]
        key = self.headers.get("Idempotency-Key")
        with Handler.lock, (self.folder / "asked").open("ab") as log:
            if key is None or key not in Handler.paid:
                log.write(b"".join(note for note, _ in rows))
            Handler.paid[key] = True
        time.sleep(mode.get("seconds", 0))
        if mode.get("break"):
            self.connection.close()
            self.close_connection = True
            return None
        answer = ANSWERS[mode.get("answer", "plain")]([row for _, row in rows])
        return self.send(mode, json.dumps(answer).encode())

    def send(self, mode, body):
        self.send_response(mode.get("status", 200))
        for name, value in ({"Content-Type": "application/json"} | mode.get("headers", {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + mode.get("promise", 0)))
        self.end_headers()
        try:
            for byte in [bytes([b]) for b in body] if "drip" in mode else [body]:
                self.wfile.write(byte)
                self.wfile.flush()
                time.sleep(mode.get("drip", 0))
        except OSError:
            self.close_connection = True  # the client had enough
        if mode.get("promise"):
            self.close_connection = True

    def log_message(self, *_):
        """Quiet."""


def serve(handler):
    handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve(Handler)
