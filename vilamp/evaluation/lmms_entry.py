"""What lmms-eval finds through the entry point ``lmms_eval.models``; it imports the model only where it is asked for."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The model that is called ``vilamp`` there."""
    return ModelManifest("vilamp", simple_class_path="vilamp.evaluation.lmms_model.ViLaMP")
