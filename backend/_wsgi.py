"""What `label-studio-ml start backend` runs, and `gunicorn --chdir backend _wsgi:app`: the same server as `kdal serve`.

Both front doors are one application, `kdal.web.app.create_app`: same routes, same answers, same errors.
"""

from __future__ import annotations

import argparse
import sys

from kdal import logs
from kdal.resources import Resources
from kdal.settings import Settings
from kdal.web.app import create_app
from kdal_core.errors import KdalError

logs.set_up()
try:
    Settings.export_aws()
    app = create_app(Resources.open(Settings.load()))
except KdalError as error:
    sys.exit(f"kdal: {error}")


def main() -> None:
    """Serve, with the options that label-studio-ml's own script has and that mean something here."""
    parser = argparse.ArgumentParser(description="kdal behind label-studio-ml")
    parser.add_argument("-p", "--port", type=int, default=9090)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    app.run(host=options.host, port=options.port, threaded=True)


if __name__ == "__main__":
    main()
