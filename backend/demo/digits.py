"""The demo's project: 1,797 real handwritten digits, 8 x 8 pixels each, that scikit-learn brings along."""

from __future__ import annotations

import io
import re

import numpy as np
import requests
from PIL import Image
from rich.progress import track
from sklearn.datasets import load_digits

from backend.labelstudio import LabelStudioClient, LabelStudioError

TITLE = "Handwritten digits"
LABEL_CONFIG = """<View>
  <Header value="Which digit is this?"/>
  <Image name="image" value="$image" width="320px" zoom="false" zoomControl="false"/>
  <Choices name="digit" toName="image" choice="single" required="true" showInline="true">
    {choices}
  </Choices>
</View>""".format(choices="\n    ".join(f'<Choice value="{digit}" hotkey="{digit}"/>' for digit in range(10)))
FILES = 100
"""Files that Label Studio takes in one request."""


def file_name(index: int) -> str:
    """Name under which a digit is uploaded."""
    return f"digit-{index:04d}.png"


def index_of(address: str) -> int:
    """Which digit an uploaded file shows."""
    found = re.search(r"digit-(\d{4})\.png$", address)
    if found is None:
        raise ValueError(f"{address} is none of the demo's digits")
    return int(found[1])


def truth() -> list[str]:
    """What each digit is, as the choice of the labelling config."""
    return [str(target) for target in load_digits().target]


def import_missing(client: LabelStudioClient, project: int) -> None:
    """Upload the digits that the project does not have yet."""
    present = {index_of(task["data"]["image"]) for task in client.tasks(project)}
    pictures = load_digits().images
    missing = [i for i in range(len(pictures)) if i not in present]
    chunks = [missing[i : i + FILES] for i in range(0, len(missing), FILES)]
    for chunk in track(chunks, description="Uploading digits", transient=True, disable=not chunks):
        # Each file in a field of its own: of several under one name Label Studio keeps the last.
        files = {f"file{i}": (file_name(i), _png(pictures[i]), "image/png") for i in chunk}
        answer = requests.post(
            f"{client.url}/api/projects/{project}/import", files=files, headers=client.authorization(), timeout=120
        )
        if not answer.ok:
            raise LabelStudioError(f"uploading digits: {answer.status_code} {answer.text[:500]}", answer.status_code)


def _png(picture: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray((picture * 255 / 16).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
