"""``python -m iadbe`` is ``iadbe``."""

from iadbe.cli import main

raise SystemExit(main())
