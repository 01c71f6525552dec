"""As ranked.py, with all numbers in float64: what then differs between runs is not the rounding of float32."""

from __future__ import annotations

import sys

import ranked
import torch

import vilamp.training.run as training
from vilamp.cli import app
from vilamp.training import sharding

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    training.hold = lambda model, dtype: model.double()  # type: ignore[assignment]
    policy = sharding.MixedPrecisionPolicy
    in_float64 = lambda reduce_dtype, **more: policy(reduce_dtype=torch.float64, **more)  # noqa: E731
    sharding.MixedPrecisionPolicy = in_float64  # type: ignore
    sys.exit(app.run(ranked.task, "train", sys.argv[2:]))
