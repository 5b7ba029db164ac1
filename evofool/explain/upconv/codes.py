"""Changed codes: binarised, half of their values dropped out, and codes between two others (Dosovitskiy & Brox 2016)."""

import numpy as np


def binarised(codes: np.ndarray) -> np.ndarray:
    """float32 (n, *code): the signs of a code's values, all of one size, with the code's norm; 0 stays 0."""
    signs = np.sign(codes.astype(np.float32))
    return _with_norm(signs, codes)


def dropped_out(codes: np.ndarray, seed: int = 0, share: float = 0.5) -> np.ndarray:
    """float32 (n, *code): that share of a code's values, drawn at random for each code, is 0; the norm is the code's."""
    kept = np.random.default_rng(seed).random(codes.shape) >= share
    return _with_norm(codes.astype(np.float32) * kept, codes)


def between(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """float32 (count, *code) from one code (*code) to the other, both included, on a straight line."""
    shares = np.linspace(0, 1, count, dtype=np.float32).reshape(-1, *[1] * one.ndim)
    return (1 - shares) * one.astype(np.float32) + shares * other.astype(np.float32)


def _with_norm(changed: np.ndarray, codes: np.ndarray) -> np.ndarray:
    flat = changed.reshape(len(changed), -1)
    wanted = np.linalg.norm(codes.astype(np.float32).reshape(len(codes), -1), axis=1)
    scale = wanted / np.maximum(np.linalg.norm(flat, axis=1), 1e-12)
    return changed * scale.reshape(-1, *[1] * (codes.ndim - 1)).astype(np.float32)
