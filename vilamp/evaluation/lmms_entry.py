"""What lmms-eval finds through the entry point ``lmms_eval.models``; the model is imported only where it is wanted."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The model that is called ``vilamp`` there."""
    return ModelManifest("vilamp", simple_class_path="vilamp.evaluation.lmms_model.ViLaMP")
