"""What the readers of files share: which numbers they take, and how they speak of a stranger's file."""

from __future__ import annotations

from collections.abc import Sized

import torch
from torch import Tensor

EXPECTED = "expected real numbers (float16, bfloat16, float32 or float64)"
TORCH_DTYPES = frozenset(
    {
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    }
)


def too_large(shown: str, size: int, max_bytes: int) -> str:
    """The refusal of a file of that many bytes."""
    return (
        f"{shown} is too large: {size:,} bytes, expected at most {max_bytes:,}. "
        "Keep fewer rows, save float16, or raise max_bytes."
    )


def show(name: str) -> str:
    """A stranger's name for a message: short, on one line, without control characters."""
    short = name if len(name) <= 80 else name[:40] + "…" + name[-39:]
    return short if short.isprintable() and short else ascii(short)


def count(arrays: Sized) -> str:
    """ "1 array", "2 arrays"."""
    return f"{len(arrays)} array{'' if len(arrays) == 1 else 's'}"


def shape_of(x: Tensor | tuple[int, ...]) -> str:
    """ "[2, 3]"."""
    dims = x.shape if isinstance(x, Tensor) else x
    return "[" + ", ".join(map(str, dims)) + "]"


def guess(data: bytes | bytearray) -> str:
    """What a file with the wrong beginning may be instead."""
    head = bytes(data[:256])
    if head.startswith(b"PK"):
        return " but a zip archive (rename it .npz if numpy.savez wrote it)"
    if head.startswith(b"\x80"):
        return " but a pickle, perhaps, which can run code when it is read"
    if all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        return " but text"
    return ""
