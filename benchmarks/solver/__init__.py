"""α_KL from raw float32 logits: this solver beside what a user would pick instead, in speed, accuracy and memory.

    make bench                       (or `python -m benchmarks.solver --help`, from the repository's root)

`cases` makes the inputs and their float64 answers, `competitors` lists who is timed, `timing` times them round-robin,
`memory` runs in a process of its own, `report` and `plots` say what came out.
"""

import os

# One thread for everyone, unless a competitor says otherwise. Libraries read these when they are imported, so they
# stand here, before any of them is.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    NPROC="1",  # XLA's thread pool
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    JAX_PLATFORMS="cpu",
)
