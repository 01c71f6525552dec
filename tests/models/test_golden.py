"""variant=release computes what the published implementation computes, end to end (see tests/golden/README.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPConfig, SiglipVisionConfig

from vilamp.build import build_model
from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.models.projector import Projector
from vilamp.models.video_lm import VideoLM
from vilamp.samples import IGNORED, Batch, EncodedQuestion, Question, Video

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
STORED = load_file(GOLDEN / "full_cases.safetensors")
DESCRIBED: dict[str, Any] = json.loads((GOLDEN / "full_cases.json").read_text())
TINY = DESCRIBED["tiny_config"]
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in DESCRIBED["cases"]}
FITTING = ["A", "B", "D", "H"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint as it is published, and the configurations alone of scorer and tower."""
    text, vision = TINY["clip_text"], TINY["clip_vision"]
    configs = {
        "scorer": CLIPConfig(text_config=text, vision_config=vision, projection_dim=TINY["clip_proj"]),
        "vision_tower": SiglipVisionConfig(**TINY["siglip"]),
    }
    made = {part: tmp_path_factory.mktemp(part) for part in [*configs, "release"]}
    for part, config in configs.items():
        config.save_pretrained(made[part])
        (made[part] / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    foreign = {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_projector_type": "mlp2x_gelu"}
    described = {"model_type": "llava_qwen", "architectures": ["LlavaQwenForCausalLM"], **TINY["llm"], **foreign}
    (made["release"] / "config.json").write_text(json.dumps(described))
    shutil.copy(GOLDEN / "tiny_state_dict.safetensors", made["release"] / "model.safetensors")
    return made


def settings(folders: dict[str, Path]) -> list[str]:
    """The overrides that build the tiny model from its checkpoint."""
    parts = [f"model.{part}.path={folders[part]}" for part in ("scorer", "vision_tower")]
    return ["model=vilamp_7b", "init=release", f"init.path={folders['release']}", *parts, "model.chunk_size=16"]


class StoredPixels(nn.Module):
    """Stands in for a preprocessor: a frame is its own number, and its pixels are those of the case."""

    def __init__(self, pixels: Tensor, repeat: int) -> None:
        super().__init__()
        self.pixels, self.repeat, self.mean = pixels, repeat, torch.zeros(1)

    def forward(self, frames: Tensor) -> Tensor:
        chosen = self.pixels[frames[:, 0, 0, 0].long()]
        return chosen.repeat_interleave(self.repeat, 2).repeat_interleave(self.repeat, 3)


def build(folders: dict[str, Path], case_id: str, *overrides: str) -> tuple[VideoLM, Batch]:
    """The tiny model under ``variant=release`` with the settings of a case, and the case's question."""
    case = CASES[case_id]
    floor = "null" if case["f2t_thrd"] == -1 else case["f2t_thrd"]
    own = [f"num_keyframes={case['max_frame_num']}", f"selector.tau={case['f2f_thrd']}"]
    own += [f"selector.relevance_floor={floor}", "variant=release"]
    model = build_model(compose("train", [*settings(folders), *own, *overrides])).eval()
    stored = {name.removeprefix(f"{case_id}/"): value for name, value in STORED.items() if name.startswith(case_id)}
    model.scorer.preprocess = StoredPixels(stored["video0.clip_lowres"], 4)
    model.vision_tower.preprocess = StoredPixels(stored["video0.siglip_lowres"], 32)
    length = len(stored["video0.selected"])
    frames = torch.arange(length, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 1, 3)
    video = Video(case_id, frames, torch.arange(length, dtype=torch.float64))
    ids, labels = stored["input_ids"][0], stored["labels"][0]
    source = Question("?", "!", "?")
    question = EncodedQuestion(f"{case_id}/0", source, stored["query0.clip_input_ids"], ids, labels, seed=0)
    return model, Batch([video], [question], [0])


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within ``tolerance`` of the greatest absolute value, as the golden data's tolerances are meant."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_every_tensor_of_the_release_has_its_place(folders: dict[str, Path]) -> None:
    model, _ = build(folders, "A")
    report, state = model.init_report, load_file(GOLDEN / "tiny_state_dict.safetensors")
    assert report is not None and not report.kept
    assert set(report.filled.values()) | set(report.left_out) == set(state)
    assert set(report.filled) == {name for name, _ in model.named_parameters(remove_duplicate=False)}
    assert all("layers.2." in name or "post_layernorm" in name or "head." in name for name in report.left_out)
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_the_release_needs_its_variant(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="variant=release"):
        build_model(compose("train", [*settings(folders), "variant=paper"]))


@pytest.mark.parametrize("case_id", FITTING)
def test_frames_sequence_logits_and_loss_are_those_of_the_release(folders: dict[str, Path], case_id: str) -> None:
    model, batch = build(folders, case_id)
    question, stored = batch.questions[0], {name[2:]: value for name, value in STORED.items() if name[0] == case_id}
    with torch.no_grad():
        visuals, selections = model.see(batch)
        joined = model.join(question.input_ids, question.labels, visuals[0], selections[0])
        sequence, labels = joined.embeddings, joined.labels
        logits = model.language_model.lm(inputs_embeds=sequence[None]).logits[0]
        output = model(batch)
    assert selections[0] is not None and selections[0].relevance is not None
    assert selections[0].keyframes.tolist() == CASES[case_id]["selected_after_fillup"][0]
    assert selections[0].keyframes.tolist() == stored["video0.selected"].nonzero().squeeze(1).tolist()
    close(selections[0].relevance, stored["video0.f2t_scores"], 1e-5)
    assert list(sequence.shape) == CASES[case_id]["inputs_embeds_shape"][1:]
    assert labels.tolist() == stored["out.labels"][0].tolist()
    if case_id == "A":
        close(sequence, stored["out.inputs_embeds"][0], 1e-6)
        close(logits, stored["out.logits"][0], 2e-6)
    else:
        rows = stored["row_index"]
        close(sequence[rows], stored["out.inputs_embeds_rows"][0], 1e-6)
        close(logits[rows[-40:]], stored["out.logits_rows"][0], 2e-6)
    close(output.loss[None], stored["out.loss"], 1e-6)
    assert output.answer_tokens == int((question.labels != IGNORED).sum())


@pytest.mark.parametrize("chunk_size", [16, 3])
def test_gradients_are_those_of_the_release(folders: dict[str, Path], chunk_size: int) -> None:
    model, batch = build(folders, "H", f"model.chunk_size={chunk_size}")
    model(batch).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if name.startswith(("merger.", "projector."))}
    assert model.init_report is not None
    published = {name: model.init_report.filled[name] for name in gradients}
    expected = {name: STORED[f"H/grad.{old}"] for name, old in published.items() if f"H/grad.{old}" in STORED}
    assert gradients.keys() == expected.keys() and len(gradients) == 14
    for name, gradient in gradients.items():
        assert gradient is not None, name
        close(gradient, expected[name], 1e-5)


def test_the_anchor_of_the_paper_gives_another_sequence(folders: dict[str, Path]) -> None:
    model, batch = build(folders, "A", "variant.anchor=preceding")
    with torch.no_grad():
        visual = model.see(batch)[0][0]
    at = 7  # tokens of text before the video
    expected = STORED["A/out.inputs_embeds"][0, at : at + len(visual)]
    rows = (visual - expected).abs().amax(1) > 1e-3
    assert len(visual) - 1 == 4 * 196 + 36 and int(rows.sum()) == 36, "all merged frames, and no keyframe"


def test_what_the_release_cuts_off_is_an_error_that_names_what_to_change(folders: dict[str, Path]) -> None:
    model, batch = build(folders, "E")
    model.language_model.context = CASES["E"]["tokenizer_model_max_length"]
    with pytest.raises(ConfigError, match=r"a sequence of 844 tokens does not fit .* context of 600") as caught:
        model(batch)
    named = ["keyframe_grid", "num_keyframes", "data.max_frames", "model.language_model.path with a longer context"]
    assert all(setting in str(caught.value) for setting in named), caught.value


def test_keyframes_are_pooled_as_in_the_release() -> None:
    projector = Projector(keyframe_grid=14, vision_dim=4, language_dim=4)
    torch.testing.assert_close(projector.pool(STORED["pool/in"]), STORED["pool/out"], rtol=0, atol=1e-6)
