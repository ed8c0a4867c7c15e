"""``python -m rexport`` is the ``rexport`` command."""

from rexport.cli import main

main()
