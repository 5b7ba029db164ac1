"""What runs on a GPU by CUDA: settings under which equal inputs have equal bits, a stream for each thread, and copies.

Written by torch's documentation, and tested with a stand-in for the device: it has not been run on a GPU.
"""

import numpy as np
import torch


def reproducible(device: torch.device) -> None:
    """Let equal batches have equal bits in forward passes on a device, for the whole process. Nothing on other devices.

    float32 is not computed in TF32, which has 10 bits. cuDNN takes deterministic algorithms, chosen by rule and not by their
    time. Where several streams multiply matrices cuBLAS needs CUBLAS_WORKSPACE_CONFIG too, which `import evofool` sets.
    Gradients may still differ in last bits: some backward passes add in any order.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def own_stream(device: torch.device, threads: int) -> None:
    """Begin a thread that uses a device: with so many torch threads and, on a GPU, a stream of its own.

    Without it all threads share a stream, in which a pass waits for those of other threads. What has been put on the device
    so far is waited for: a stream does not wait for another one by itself. Only for threads that share no tensors but those.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))


def settle(device: torch.device) -> None:
    """Wait until everything that a device was asked for is done, so that other streams may use it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def uploaded(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array on a device. To a GPU it goes by pinned memory, so that the thread does not wait for the copy."""
    # torch warns of an array that may not be written to.
    pixels = torch.from_numpy(images if images.flags.writeable else images.copy())
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels.to(device)
