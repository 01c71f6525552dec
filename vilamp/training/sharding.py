"""Weights, gradients and optimiser spread over all processes: PyTorch's FSDP2 as a strategy of Lightning.

Each block of the language model is gathered when it runs and spread again behind it, in both passes.  All other parts
are one unit, gathered for the length of a step: how often the vision tower runs depends on a rank's videos, and ranks
that gather at different times would wait for each other forever.  Frozen weights are spread like those that train.

The checkpoints are those of any other strategy, so that a run can go on with another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from vilamp.errors import ConfigError
from vilamp.models.video_lm import VideoLM


def shard(model: VideoLM, mesh: DeviceMesh, compute: torch.dtype | None = None) -> None:
    """Spread a model over the processes of a mesh, in place; once is enough.

    Args:
        model: whole on every process, or without weights.
        mesh: of one dimension; of two, the first has copies and the second the shards of each.
        compute: what the language model's blocks are gathered and computed in, None as they are held; their gradients
            are added up in float32.

    Raises:
        ConfigError: a single number is to be trained, which FSDP2 cannot spread.
    """
    if isinstance(model, FSDPModule):
        return
    # Inputs stay what they are, as under autocast alone: the sum that runs through the blocks is float32.
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
    numbers = {name: parameter for name, parameter in model.named_parameters() if parameter.dim() == 0}
    for name, number in numbers.items():
        if number.requires_grad:
            raise ConfigError(
                f"{name} is a single number that is to be trained, which cannot be spread over processes: take "
                "trainer=ddp, or leave it as it is (optim.lr of its part null; for a merger of the release "
                "merger.learn_alpha=false)"
            )
    for block in model.language_model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, ignored_params=set(numbers.values()))
    register_fsdp_forward_method(model, "generate")


def whole(tensor: Tensor) -> Tensor:
    """A tensor as if it had not been spread; all processes must call this at the same place."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(example: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor, the same on every process, spread as another one is; as it is where that one is whole."""
    if not isinstance(example, DTensor) or tensor.shape != example.shape:
        return tensor
    return distribute_tensor(tensor, example.device_mesh, example.placements, src_data_rank=None)


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a module, spread or whole, with the whole weights of a checkpoint; what is not in it stays."""
    own = module.state_dict()
    module.load_state_dict({name: spread_like(own[name], weight) for name, weight in state.items()}, strict=False)


class FullyShard(ModelParallelStrategy):
    """What the file's head says.

    Args:
        within_node: every node has a copy of all weights, spread over its processes; else there is one copy in all.
    """

    def __init__(self, within_node: bool = False) -> None:
        super().__init__(save_distributed_checkpoint=False)
        self.within_node = within_node

    def setup_environment(self) -> None:
        """Fix the mesh, now that the number of processes is known."""
        if not self.within_node:
            self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    @property
    def mesh(self) -> DeviceMesh:
        """What the model is spread over: of one dimension, or nodes x their processes."""
        return self.device_mesh if self.within_node else self.device_mesh["data_parallel"]

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """No: setting up asks for the optimiser's schedule and the first batches, which begin where it stands."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes, through :meth:`load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, of what trains; on other ranks than the first None in the place of each."""
        assert self.lightning_module is not None
        names = self.lightning_module.trained_names()
        return self._on_first({name: w for name, w in self.lightning_module.state_dict().items() if name in names})

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As of an optimiser over whole weights; on other ranks than the first None in the place of each."""
        return self._on_first(optimizer.state_dict())

    def _on_first(self, state: dict[str, Any]) -> dict[str, Any]:
        """Each tensor whole, one after the other, and kept by the first rank."""

        def gathered(tensor: Tensor) -> Tensor | None:
            value = whole(tensor)
            return value.cpu() if self.is_global_zero else None

        return tree_map_only(Tensor, gathered, state)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file, on every rank."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Spread the weights."""
        assert self.lightning_module is not None
        load_weights(self.lightning_module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Spread the state."""
        for optimizer, stored in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {name: spread_like(parameters[number], value) for name, value in of_parameter.items()}
                for number, of_parameter in stored["state"].items()
            }
            optimizer.load_state_dict({**stored, "state": state})
