"""Every kernel, the trainer and the data room beside what people use today.

``pytest benchmarks/`` times losses and the trainer; scripts run as modules from the repository's
root: ``python -m benchmarks.recipes.train``. Rooms know those below them alone: ``reporting``; then
``losses``, ``training``, ``data`` and ``recipes``; then ``gpu``.
"""
