"""What the commands do, one job each: a frozen request, ``run``, and a frozen result with ``to_json``.

Everywhere ``progress`` is told of all that takes long, ``note`` what the user should know, such as what is assumed, and
``say`` how the work goes.
"""
