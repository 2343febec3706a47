"""``python -m monitor`` is the same program as ``recodex-monitor``."""

import sys

from monitor.main import main

if __name__ == "__main__":
    sys.exit(main())
