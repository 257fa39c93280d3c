"""Two-tower (dual-encoder) search: towers, losses, negatives, whole-corpus evaluation, diagnosis, search."""

import os

from two_tower.places import use_writable_places

# Threads that wait for work sleep instead of spinning. On a busy or virtual machine spinning made small
# steps up to ten times slower; on a quiet one sleeping costs up to a fifth of an RNN's step, nothing of the
# average's. Your own setting wins. It must be made before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

use_writable_places()

__version__ = "0.1.0"
