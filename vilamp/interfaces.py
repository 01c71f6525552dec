"""All that the author of a selector, a merger or a video decoder must read.

Shapes, here and everywhere: N frames of a video, n frames of one chunk, K keyframes, A anchors, P patches of a frame,
Ds width of the scorer, D width of the space that a merger works in.

A plugin subclasses :class:`FrameSelector` or :class:`FrameMerger`, writes ``forward`` and names itself by a yaml file
(``conf/selector/my_selector.yaml``); a video decoder subclasses :class:`VideoDecoder` and writes ``decode`` (its
contract is in :mod:`vilamp.video`, from where it can be imported without torch).  :mod:`vilamp.testing` checks the
rules of all three.  For selectors and mergers they are:

* inputs are never changed in place;
* the result is the same for the same inputs and generator state, and for a merger also for every chunking of the video;
* randomness comes from the ``generator`` argument alone.  It lives on the CPU.  A merger draws with ``torch.rand``, the
  same count for every frame in frame order, so that two chunks of 8 draw what one chunk of 16 draws;
* float32 and bfloat16 both work, gradients reach every parameter that requires them;
* a wrong shape or a non-finite number is a ``ValueError`` that names the argument (:func:`check_selector_inputs` and
  :func:`check_merger_inputs` do this for you).

:func:`frame_relevance` is there for selectors that rank by the query.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vilamp.probe import DecodeError, FileRange, Probe, Source, open_source, probe_video
from vilamp.video import CHUNK, FrameChunk, UnsuitedError, VideoDecoder

__all__ = [
    "CHUNK",
    "NO_ANCHOR",
    "DecodeError",
    "FileRange",
    "FrameChunk",
    "FrameMerger",
    "FrameSelector",
    "Probe",
    "Selection",
    "Source",
    "UnsuitedError",
    "VideoDecoder",
    "check_finite",
    "check_merger_inputs",
    "check_selector_inputs",
    "frame_relevance",
    "open_source",
    "probe_video",
]

NO_ANCHOR = -1
"""The value in ``anchor_of`` of a frame that no keyframe precedes."""


@dataclass(frozen=True)
class Selection:
    """Which frames of one video keep full precision.

    Attributes:
        keyframes: int64[K], ascending, unique, each in 0..N-1.
        relevance: float[N], what the selector ranked the frames by (for plots and metrics), or None.
    """

    keyframes: Tensor
    relevance: Tensor | None = None

    def __post_init__(self) -> None:
        indices = self.keyframes
        if indices.dtype != torch.int64 or indices.dim() != 1:
            raise ValueError(f"keyframes must be int64[K], got {indices.dtype}{list(indices.shape)}")
        if indices.numel() and (int(indices[0]) < 0 or bool((indices[1:] <= indices[:-1]).any())):
            raise ValueError(f"keyframes must be ascending, unique and not negative, got {indices.tolist()}")


class FrameSelector(nn.Module, ABC):
    """Picks the keyframes of one video for one question.

    The width Ds is passed to the constructor as ``query_dim`` where it has such a parameter.
    """

    @abstractmethod
    def forward(
        self,
        frames: Tensor,
        query: Tensor,
        num_keyframes: int,
        *,
        timestamps: Tensor,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """Select at most ``num_keyframes`` frames.

        A selector with a threshold may select none where no frame is good enough; a frame that equals the query always
        is.

        Args:
            frames: float[N, Ds], unit rows: the scorer's embedding of every frame.  N >= 1.
            query: float[Ds], unit norm: the scorer's embedding of the question.
            num_keyframes: K >= 1.  Where N < K, at most N frames are selected.
            timestamps: float[N], seconds, ascending.
            generator: the only source of randomness; None means that the caller wants a deterministic selector, and a
                selector that needs one raises ValueError.

        Raises:
            ValueError: a wrong shape, a non-finite number, N < 1 or K < 1.
        """


class FrameMerger(nn.Module, ABC):
    """Turns every frame that is not a keyframe into ``tokens_per_frame`` tokens.

    The widths D and Ds are passed to the constructor as ``dim`` and ``query_dim`` where it has such parameters.

    Attributes:
        tokens_per_frame: T >= 0, constant for the life of the object.  0 drops the frames.
        space: ``"vision"``: works on the vision tower's features, its tokens then go through the projector's second
            MLP.  ``"language"``: works on projected features, its tokens go to the language model as they are.
        unit_query: the query comes with unit norm; False: with the norm that the scorer's encoder gives it.
    """

    tokens_per_frame: int = 1
    space: Literal["vision", "language"] = "vision"
    unit_query: bool = True

    @abstractmethod
    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Merge the patches of n frames.

        Args:
            patches: float[n, P, D], the frames to merge, in temporal order.  n >= 0.
            anchors: float[A, P, D], frames that these may be compared with: keyframes, unless ``model.anchor`` says
                otherwise.  A >= 0.
            anchor_of: int64[n], for each frame the row of its anchor in ``anchors``, the nearest preceding keyframe, or
                :data:`NO_ANCHOR` where none precedes.
            query: float[Ds], the scorer's embedding of the question, see ``unit_query``.
            generator: as in :class:`FrameSelector`.

        Returns:
            float[n, tokens_per_frame, D], in the dtype of ``patches``.

        Raises:
            ValueError: a wrong shape, a non-finite number, or an anchor outside 0..A-1.
        """

    @torch.no_grad()
    def token_weights(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor | None:
        """What the tokens of :meth:`forward` attend to, for pictures; a merger that can tell overrides this.

        It is asked only while a picture is made, and training never pays for it.

        Args:
            patches: as in :meth:`forward`, and so the next three.
            anchors: float[A, P, D].
            anchor_of: int64[n].
            query: float[Ds].
            generator: in the state that :meth:`forward` finds it in, so that both draw the same.

        Returns:
            float[n, tokens_per_frame, P] without gradient: the share of every patch in every token, >= 0, with a sum of
            1 over the patches.  None where the merger does not tell, as here.
        """
        return None


def check_selector_inputs(
    frames: Tensor, query: Tensor, num_keyframes: int, timestamps: Tensor, *, finite_frames: bool = True
) -> None:
    """Raise ValueError unless the arguments are what :meth:`FrameSelector.forward` promises.

    A selector that sees by its relevance whether the frames are finite passes ``finite_frames=False``, which spares a
    pass over all of them, and then calls :func:`check_finite` itself.
    """
    if frames.dim() != 2 or frames.shape[0] < 1:
        raise ValueError(f"frames must be float[N, Ds] with N >= 1, got {list(frames.shape)}")
    if query.shape != frames.shape[1:]:
        raise ValueError(f"query must be float[{frames.shape[1]}] to match frames, got {list(query.shape)}")
    if timestamps.shape != frames.shape[:1]:
        raise ValueError(f"timestamps must be float[{frames.shape[0]}] to match frames, got {list(timestamps.shape)}")
    if num_keyframes < 1:
        raise ValueError(f"num_keyframes must be at least 1, got {num_keyframes}")
    if finite_frames:
        check_finite(frames=frames)
    check_finite(query=query, timestamps=timestamps)


def frame_relevance(frames: Tensor, query: Tensor) -> Tensor:
    """float[N]: the cosine of every frame with the query (ViLaMP, Eq. 2-3).

    At least float32, whatever the inputs are and also under autocast, in blocks, so that no wider copy of all frames is
    made.  Takes no part in gradients.

    Args:
        frames: float[N, Ds], unit rows.
        query: float[Ds], unit norm.
    """
    frames = frames.detach()
    dtype = torch.promote_types(frames.dtype, torch.float32)
    query = query.detach().to(dtype)
    with torch.autocast(frames.device.type, enabled=False):
        if frames.dtype == dtype:
            return frames @ query
        return torch.cat([block.to(dtype) @ query for block in frames.split(1024)])


def check_merger_inputs(
    patches: Tensor,
    anchors: Tensor,
    anchor_of: Tensor,
    query: Tensor,
    *,
    dim: int | None = None,
    query_dim: int | None = None,
    finite_patches: bool = True,
) -> None:
    """Raise ValueError unless the arguments are what :meth:`FrameMerger.forward` promises.

    A merger whose parameters fix ``dim`` or ``query_dim`` passes them to have them checked too.  One that sees by its
    result whether the patches are finite passes ``finite_patches=False``, which spares a pass over all of them, and
    then calls :func:`check_finite` itself.
    """
    if patches.dim() != 3 or patches.shape[1] < 1:
        raise ValueError(f"patches must be float[n, P, D] with P >= 1, got {list(patches.shape)}")
    if anchors.dim() != 3 or anchors.shape[1:] != patches.shape[1:]:
        raise ValueError(f"anchors must be float[A, {patches.shape[1]}, {patches.shape[2]}], got {list(anchors.shape)}")
    if anchor_of.dtype != torch.int64 or anchor_of.shape != patches.shape[:1]:
        raise ValueError(f"anchor_of must be int64[{patches.shape[0]}], got {anchor_of.dtype}{list(anchor_of.shape)}")
    if anchor_of.numel() and not NO_ANCHOR <= int(anchor_of.min()) <= int(anchor_of.max()) < anchors.shape[0]:
        raise ValueError(f"anchor_of must lie in -1..{anchors.shape[0] - 1}, got {anchor_of.tolist()}")
    if query.dim() != 1:
        raise ValueError(f"query must be float[Ds], got {list(query.shape)}")
    for name, value, width in (("patches", patches, dim), ("query", query, query_dim)):
        if width is not None and value.shape[-1] != width:
            raise ValueError(f"{name} must be {width} wide, as the merger was built, got {list(value.shape)}")
    if finite_patches:
        check_finite(patches=patches)
    check_finite(anchors=anchors, query=query)


def check_finite(**tensors: Tensor) -> None:
    """Raise ValueError that names the first argument with a NaN or an infinity in it."""
    for name, value in tensors.items():
        # The sum of anything not finite is not finite, and it costs one pass without a copy; isfinite() allocates more
        # than the tensor itself.  Only a sum that overflows needs the closer look.
        if not bool(value.detach().sum().isfinite()) and not bool(value.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinity")
