"""`python -m schnet` does what `schnet` does."""

import sys

from schnet.cli import main

sys.exit(main())
