"""What `label-studio-ml start backend` runs: label-studio-ml's own server around `KDALModel`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run as a file, this folder is first on sys.path; the package is what is meant.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

from label_studio_ml import api  # noqa: E402

from backend.model import KDALModel, answer_directly, service  # noqa: E402

app = answer_directly(api.init_app(model_class=KDALModel))


def main() -> None:
    """Serve, with the options that label-studio-ml's own script has."""
    parser = argparse.ArgumentParser(description="kdal behind label-studio-ml")
    parser.add_argument("-p", "--port", type=int, default=9090)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    service()  # now, and not within the three seconds that Label Studio grants the first /setup
    app.run(host=options.host, port=options.port, threaded=True)


if __name__ == "__main__":
    main()
