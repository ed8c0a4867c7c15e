"""The measurements behind the README's table, one command each: ``python -m benchmarks.studies.NAME``.

Each uses the ``rexport`` command itself, prints its figures, and keeps them, with the facts of the machine and the
raw times, in a JSON file. Those of this repository lie in ``benchmarks/results/``.
"""
