import sys

from schnet.cli import main

sys.exit(main())
