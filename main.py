"""Runs recodex-monitor from a checkout: ``python main.py -c install/checkout.yml``."""

import sys

from monitor.main import main

if __name__ == "__main__":
    sys.exit(main())
