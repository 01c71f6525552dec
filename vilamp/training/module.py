"""The LightningModule: steps, optimiser, logging.  What the model is stands in :mod:`vilamp.models`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning import LightningModule
from torch import Tensor, nn

from vilamp.errors import ConfigError
from vilamp.models.lora import adapter_parameters
from vilamp.models.video_lm import Output, VideoLM
from vilamp.samples import Batch
from vilamp.training.metrics import QuestionMetrics
from vilamp.training.optim import PartwiseAdamW
from vilamp.training.restart import total_steps


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
        self.steps_behind = 0
        """Of the optimiser, in the checkpoint that training goes on from."""
        optim.freeze(model)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Mean loss per answer token."""
        output: Output = self.model(batch)
        if not batch.questions:  # all were skipped
            return self._touch(output.loss, list(self.model.children()))
        self.log("train/loss", output.loss, prog_bar=True, batch_size=output.answer_tokens)
        accuracy = output.exact.float().mean()
        self.log("train/accuracy", accuracy, prog_bar=True, batch_size=len(batch.questions))
        if all(video < 0 for video in batch.video_of):  # text alone reaches the language model only
            return self._touch(output.loss, [p for p in self.model.children() if p is not self.model.language_model])
        return output.loss

    @staticmethod
    def _touch(loss: Tensor, parts: list[nn.Module]) -> Tensor:
        """The loss plus a zero that depends on every weight of the parts: ranks wait for each other's gradients."""
        return sum((p.sum() * 0 for part in parts for p in part.parameters() if p.requires_grad), start=loss)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count."""
        self.validation.update(batch, self.model(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation set."""
        metrics = self.validation.compute()
        if not metrics:
            raise ConfigError("no validation question could be used; data/skipped and quarantine.jsonl say why")
        named = {
            "visual_tokens" if name == "visual_tokens" else f"val/{name}": value for name, value in metrics.items()
        }
        self.history.append({"step": float(self.global_step), **named})
        self.log_dict(named)  # the same on every rank: compute() gathered them

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
        trained = {f"model.{name}" for name in self.trained()}
        checkpoint["state_dict"] = {name: w for name, w in checkpoint["state_dict"].items() if name in trained}
        checkpoint["config"] = self.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that holds other weights than those that train.

        Raises:
            ConfigError: names are missing or left over.
        """
        stored = {name.removeprefix("model.") for name in checkpoint["state_dict"]}
        self.require(stored, left_over=stored - self.trained())
        self.steps_behind = checkpoint["global_step"]

    def require(self, stored: set[str], left_over: Iterable[str] = ()) -> None:
        """Refuse weights that are not those of a run with this configuration.

        Args:
            stored: names of what there is.
            left_over: those among them that are too many.

        Raises:
            ConfigError: some that train are missing, or there are some too many.
        """
        missing, left = sorted(self.trained() - stored), sorted(left_over)
        if missing or left:
            raise ConfigError(
                f"the checkpoint does not fit the configuration: missing {missing[:5]}, left over {left[:5]} (the "
                "first five of each); use the selector, merger, model and optim.lr of its run"
            )

    def trained(self) -> set[str]:
        """Names in the model's state dict (buffers too) of what trains; of a part with adapters, only these."""
        trained: set[str] = set()
        for name, part in self.model.named_children():
            if self.optim.lr[name] is not None:
                frozen = {key for key, p in part.named_parameters(remove_duplicate=False) if not p.requires_grad}
                held = adapter_parameters(part) or set(part.state_dict()) - frozen
                trained |= {f"{name}.{key}" for key in held}
        return trained
