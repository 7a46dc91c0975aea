"""One thread for torch in every test, and in every process that a test starts.

On small tensors a second thread saves nothing, and beside another busy process OpenMP's threads wait for each other so
long that a test of seconds takes minutes. What torch is asked to do then also is the same on every machine.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
