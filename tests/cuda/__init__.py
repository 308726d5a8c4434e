"""Tests on a CUDA device, each against the same computation on a CPU; the cheap ones also run from CPU to CPU."""
