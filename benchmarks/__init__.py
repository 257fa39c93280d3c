"""Side-by-side benchmarks: ``python -m benchmarks`` (``make bench``).

Each file with a function ``run`` compares this package with others on one kind of work and returns rows of the table;
``run(quick=True)`` has tiny sizes and one round: it shows that all works, not how fast. The rules:

- The work is equal, and that is checked: equal ids, vectors, losses or metrics before any time is taken, else a
  RuntimeError.
- Peers run in the same process, in turns with ours, so that a busy machine slows all of them; a ratio is the
  median of the rounds' ratios.
- Peers get their fastest settings: several where it depends on the machine, and the fastest of them counts.
- Everybody uses all threads. This package makes OpenMP's threads sleep while they wait (see
  ``two_tower/__init__.py``); ``OMP_WAIT_POLICY=ACTIVE python -m benchmarks`` lets them spin, for everybody.
"""
