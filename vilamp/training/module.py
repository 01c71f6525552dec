"""The LightningModule: steps, optimiser, logging.  What the model is stands in :mod:`vilamp.models`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from vilamp.errors import ConfigError, DivergedError
from vilamp.models.lora import adapter_parameters
from vilamp.models.video_lm import Output, VideoLM
from vilamp.samples import Batch
from vilamp.training.metrics import QuestionMetrics
from vilamp.training.optim import PartwiseAdamW
from vilamp.training.ranks import gather
from vilamp.training.restart import total_steps
from vilamp.training.sharding import FullyShard, shard, whole
from vilamp.training.window import Sums, Window

SHOWN = 8
"""Of the questions of a step that has no finite loss, so many are named."""


class VideoQA(LightningModule):
    """Question answering over video.

    Args:
        model: the whole model.
        optim: which parts train, and how fast.
        config: the run's configuration in plain containers, from :func:`vilamp.build.portable`; it goes into every
            checkpoint.
    """

    def __init__(self, model: VideoLM, optim: PartwiseAdamW, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.optim = optim
        self.config = config
        self.strict_loading = False  # a checkpoint holds what trained; on_load_checkpoint checks that it is all there
        self.validation = QuestionMetrics()
        self.history: list[dict[str, float]] = []
        """The validation metrics of every validation so far, in order, with the step."""
        self.right: dict[str, bool] = {}
        """Key of a question -> whether it is right, in the :meth:`best` validation."""
        self.window = Window()
        self.steps_behind = 0
        """Of the optimiser, in the checkpoint that training goes on from."""
        optim.freeze(model)

    def configure_model(self) -> None:
        """Spread the model over the processes where the strategy is to, whatever is called first: fit or validate."""
        strategy = self.trainer.strategy
        batches = self.trainer.accumulate_grad_batches
        if strategy.handles_gradient_accumulation and batches > 1:
            raise ConfigError(
                f"trainer.accumulate_grad_batches={batches} would give each batch one weight under DeepSpeed, however "
                "many answer tokens it has; set 1, or take trainer=ddp or fsdp"
            )
        if isinstance(strategy, FullyShard):
            mixed = self.trainer.precision == "bf16-mixed"
            shard(self.model, strategy.mesh, torch.bfloat16 if mixed else None)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross entropy summed over the answer tokens, whose gradient :meth:`on_before_optimizer_step` scales.

        DeepSpeed keeps gradients to itself: there the loss is scaled, since a step is one batch of each rank.
        """
        output: Output = self.model(batch)
        self.window.add(batch, output)
        if not self.trainer.strategy.handles_gradient_accumulation:
            return output.total
        tokens = self._over_ranks(output.total.new_tensor(output.answer_tokens))
        return output.total * self.trainer.world_size / tokens.clamp(min=1)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the gradient that of the mean over the answer tokens of all ranks and accumulated batches, and log.

        Only now it is known how many tokens there are.  Lightning clips after this.

        Raises:
            DivergedError: the loss or a gradient is not finite; on all ranks.
        """
        sums = self.window.close(self._over_ranks)
        # The strategies average over the ranks, and Lightning over the batches.
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches / max(sums.tokens, 1)
        norms = {}
        for name, part in self.model.named_children():
            gradients = [p.grad for p in part.parameters() if p.grad is not None]
            if gradients and not self.trainer.strategy.handles_gradient_accumulation:
                torch._foreach_mul_(gradients, scale)
                norms[f"grad_norm/{name}"] = whole(torch.nn.utils.get_total_norm(gradients)).item()
        if not all(map(math.isfinite, [sums.total, *norms.values()])):
            raise DivergedError(self._where(sums, norms))
        self.window = Window()
        self.log_dict(sums.figures, prog_bar=True)
        self.log_dict(norms)

    def _over_ranks(self, own: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(own, reduce_op="sum")

    def _where(self, sums: Sums, norms: dict[str, float]) -> str:
        """What is not finite, in which step, and which questions were asked in it."""
        keys = sorted({key for of_rank in gather(self.window.suspects()) for key in of_rank})
        values = {"loss": sums.total} | norms
        wrong = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        return (
            f"training has diverged in step {self.global_step}: {wrong}, with the questions {', '.join(keys[:SHOWN])}"
            f"{more}. This step was not made, and the checkpoints are from before it. Look at these samples; where "
            "nothing is wrong with them, lower optim.lr or raise optim.warmup"
        )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count."""
        self.validation.update(batch, self.model(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation set."""
        metrics, right = self.validation.compute()
        if not metrics:
            raise ConfigError("no validation question could be used; data/skipped and quarantine.jsonl say why")
        named = {
            "visual_tokens" if name == "visual_tokens" else f"val/{name}": value for name, value in metrics.items()
        }
        self.history.append({"step": float(self.global_step), **named})
        if self.best() is self.history[-1]:
            self.right = right
        self.log_dict(named)  # the same on every rank: compute() gathered them

    def best(self) -> dict[str, float]:
        """The metrics of the best validation since the first step; of the only one where none came since."""
        before, *after = self.history
        return max(after or [before], key=lambda metrics: metrics["val/accuracy"])

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, and its schedule by step."""
        steps = total_steps(self.trainer, self.steps_behind)
        if steps == float("inf"):
            raise ConfigError(
                "trainer.max_epochs=-1 needs trainer.max_steps: the learning rate falls until the last step"
            )
        optimizer, schedule = self.optim.optimizer(self.model, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only the weights that train, and add the configuration."""
        trained = self.trained_names()
        checkpoint["state_dict"] = {name: w for name, w in checkpoint["state_dict"].items() if name in trained}
        checkpoint["config"] = self.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that holds other weights than those that train.

        Raises:
            ConfigError: names are missing or left over.
        """
        stored = set(checkpoint["state_dict"])
        self.require(stored, left_over=stored - self.trained_names())
        self.steps_behind = checkpoint["global_step"]

    def require(self, stored: set[str], left_over: Iterable[str] = ()) -> None:
        """Refuse weights that are not those of a run with this configuration.

        Args:
            stored: names of what there is, in this module's state dict.
            left_over: those among them that are too many.

        Raises:
            ConfigError: some that train are missing, or there are some too many.
        """
        missing, left = sorted(self.trained_names() - stored), sorted(left_over)
        if missing or left:
            raise ConfigError(
                f"the checkpoint does not fit the configuration: missing {missing[:5]}, left over {left[:5]} (the "
                "first five of each); use the selector, merger, model and optim.lr of its run"
            )

    def trained_names(self) -> set[str]:
        """Names in the state dict (buffers too) of what trains; of a part with adapters, only these."""
        trained: set[str] = set()
        for name, part in self.model.named_children():
            if self.optim.lr[name] is not None:
                frozen = {key for key, p in part.named_parameters(remove_duplicate=False) if not p.requires_grad}
                held = adapter_parameters(part) or set(part.state_dict()) - frozen
                trained |= {f"model.{name}.{key}" for key in held}
        return trained
