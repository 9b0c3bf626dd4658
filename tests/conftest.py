"""One thread a process: pytest runs several processes, and the rows in the tests are small."""

import torch

torch.set_num_threads(1)
