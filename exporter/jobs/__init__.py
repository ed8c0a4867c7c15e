"""What the commands do, one job each: a frozen request, ``run``, and a frozen result with ``to_json``."""
