"""Shared by all tests of the package."""

import torch

torch.set_num_threads(1)  # tiny tensors: threads of another library would only wait for each other
