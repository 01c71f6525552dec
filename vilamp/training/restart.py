"""What has to be as it was before training goes on: random states and Lightning's counters."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning import Trainer


def random_states() -> dict[str, Any]:
    """Those of this process, in plain containers and tensors; of the current CUDA device, where there is one."""
    name, words, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_states(of_ranks: list[dict[str, Any]], rank: int, world_size: int, seed: int) -> None:
    """Set those of this process.

    Args:
        of_ranks: from :func:`random_states`, one for each rank that there was.
        rank: of this process.
        world_size: how many there are now.
        seed: to begin anew with where there was another number of ranks.
    """
    if len(of_ranks) != world_size:
        random.seed(seed + rank)
        np.random.seed((seed + rank) % 2**32)
        torch.manual_seed(seed + rank)  # of CUDA, too
        return
    states = of_ranks[rank]
    random.setstate(states["python"])
    name, words, *rest = states["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def set_counters(fit_loop: dict[str, Any], epoch: int, *, done: int, batches: int, steps: int, accumulate: int) -> None:
    """Rewrite the state of Lightning's fit loop: ``done`` batches of the epoch are over, and what follows on a batch.

    A checkpoint can come from many a place in Lightning's loops, each with rules of its own for what is repeated or
    left out afterwards.  All of them become one of two: between two batches of an epoch, or before its first.

    Args:
        fit_loop: of a checkpoint of Lightning, changed in place.
        epoch: in which it goes on.
        done: batches of the epoch.
        batches: of the whole run so far.
        steps: of the optimiser so far.
        accumulate: batches in a step.
    """
    for key in [key for key in fit_loop if key.startswith("epoch_loop.val_loop.")]:
        del fit_loop[key]  # no validation was under way
    begun = epoch + (done > 0)
    of_epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    fit_loop["epoch_progress"] = {"total": of_epochs, "current": dict(of_epochs)}
    # Lightning itself completes the batch that was under way, and counts its step where the batch ended one.
    under_way = int(done > 0)
    fit_loop["epoch_loop.batch_progress"] = {
        "total": _after(batches, under_way),
        "current": _after(done, under_way),
        "is_last_batch": False,
    }
    ended_step = under_way and done % accumulate == 0
    fit_loop["epoch_loop.state_dict"] = {"_batches_that_stepped": steps - ended_step}


def _after(batches: int, under_way: int) -> dict[str, int]:
    return {"ready": batches, "started": batches, "processed": batches, "completed": batches - under_way}


def total_steps(trainer: Trainer, steps: int) -> int | float:
    """Optimiser steps of the whole run: those behind, and those ahead with the ranks and the batches of today.

    Args:
        trainer: whose data module knows where training goes on.
        steps: behind.

    Returns:
        Infinity where neither epochs nor steps are bounded.
    """
    whole = trainer.estimated_stepping_batches  # also sets up the data, and with it num_training_batches
    if steps == 0 or trainer.max_epochs == -1:
        return whole
    data, accumulate = trainer.datamodule, trainer.accumulate_grad_batches
    in_epoch = -(-trainer.num_training_batches // accumulate)
    ahead = (trainer.max_epochs - data.start.epoch) * in_epoch - data.train_batches().done // accumulate
    return min(steps + ahead, trainer.max_steps) if trainer.max_steps != -1 else steps + ahead


def validate_after(trainer: Trainer, steps: int) -> None:
    """Make up for a validation, between two batches of training, as if the last of so many steps had just ended."""
    epoch_loop = trainer.fit_loop.epoch_loop
    counted = epoch_loop._batches_that_stepped
    epoch_loop._batches_that_stepped = steps - 1  # which the figures are logged with
    trainer.validating = True
    epoch_loop.val_loop.run()
    trainer.training = True
    epoch_loop._batches_that_stepped = counted
