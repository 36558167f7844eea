"""What `label-studio-ml start backend` runs: label-studio-ml's own server around `KDALModel`."""

from __future__ import annotations

import argparse

from label_studio_ml import api

from model import KDALModel, answer_directly, service

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
