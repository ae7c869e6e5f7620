"""`python -m sonic_ms` is `sonic-ms`."""

import sys

from sonic_ms.cli import main

sys.exit(main())
