"""A black-box teacher of digits behind a real HTTP server, which never says 3: it takes a 3 for a 5.

`python digit_teacher.py FOLDER [PORT]`. Of every image that it works on, FOLDER/asked gets a line: its SHA-256. How
it behaves is FOLDER/mode.json, see tests/kdal/teachers/served.py.
"""

import hashlib
import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tests.kdal.teachers.served import Handler, serve

WRONG, SAID = 3, 5


class DigitHandler(Handler):
    model: LogisticRegression

    @classmethod
    def classify(cls, file: bytes) -> tuple[bytes, list[float]]:
        with Image.open(io.BytesIO(file)) as image:
            pixels = np.asarray(image.convert("L"), dtype=np.float64)
        row = cls.model.predict_proba(pixels.reshape(1, 64) / 255)[0]
        row[SAID], row[WRONG] = row[SAID] + row[WRONG], 0.0
        return hashlib.sha256(pixels.tobytes()).hexdigest().encode() + b"\n", row.tolist()


if __name__ == "__main__":
    source, labels = load_digits(return_X_y=True)
    DigitHandler.model = LogisticRegression(max_iter=1000).fit(source / 16, labels)
    serve(DigitHandler)
