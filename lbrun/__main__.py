"""``python -m lbrun``."""

import sys

from lbrun.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
