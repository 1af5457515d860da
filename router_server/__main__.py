"""``python -m router_server`` is the command ``router-server``."""

import sys

from router_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
