"""Frames in a file are those that were written, whoever reads them, and no file is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vilamp.frame_file import FrameFile
from vilamp.samples import Video

FRAMES = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)


def filled(folder: Path) -> FrameFile:
    file = FrameFile.make(folder, 10, 4)
    for start in range(0, 10, 3):
        file[start : start + 3] = FRAMES[start : start + 3]
    return file


def test_it_is_indexed_as_a_tensor_is(tmp_path: Path) -> None:
    file, frames = filled(tmp_path), torch.from_numpy(FRAMES)
    assert (len(file), file.shape) == (10, frames.shape)
    for number in (0, 9, -1, np.int64(3)):
        assert torch.equal(file[number], frames[number])
    for bounds in ((None, None), (2, 5), (8, 20), (5, 5), (1, 9, 3), (-2, None)):
        assert torch.equal(file[slice(*bounds)], frames[slice(*bounds)])
    for numbers in ([], [3], [7, 0, 7]):
        assert torch.equal(file[torch.tensor(numbers, dtype=torch.int64)], frames[numbers])
    assert torch.equal(file.head(4)[:], frames[:4]) and len(file.head(4)) == 4
    with pytest.raises(IndexError):
        file[10]


def test_what_is_read_may_be_written_to(tmp_path: Path) -> None:
    file = filled(tmp_path)
    file[:2].zero_()
    assert torch.equal(file[:2], torch.from_numpy(FRAMES[:2]))


def test_a_frame_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    file = FrameFile.make(tmp_path, 10, 4)
    file[0:3] = FRAMES[:3]
    with pytest.raises(EOFError, match="frame 3 of 10"):
        file[2:5]


def test_the_head_of_a_video_copies_nothing(tmp_path: Path) -> None:
    times = torch.arange(10, dtype=torch.float64)
    in_file = Video("v", filled(tmp_path), times).head(3)
    in_memory = Video("v", torch.from_numpy(FRAMES), times).head(3)
    assert isinstance(in_file.frames, FrameFile) and len(in_file) == len(in_memory) == 3
    assert isinstance(in_memory.frames, torch.Tensor) and in_memory.frames.data_ptr() == FRAMES.ctypes.data
    assert torch.equal(in_file.frames[:], in_memory.frames)


def test_the_file_has_no_name_and_goes_with_its_last_reader(tmp_path: Path) -> None:
    file = filled(tmp_path)
    assert not list(tmp_path.iterdir())
    first, head = file.descriptor, file.head(2)
    del file
    assert torch.equal(head[:], torch.from_numpy(FRAMES[:2]))
    second = head.descriptor
    del head
    for descriptor in (first, second):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


class Files(Dataset[FrameFile]):
    """Written by a worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> FrameFile:
        file = FrameFile.make(self.folder, 10, 4)
        file[0:10] = FRAMES + number
        return file


def test_a_worker_hands_its_files_on(tmp_path: Path) -> None:
    files = list(DataLoader(Files(tmp_path), batch_size=None, num_workers=2))  # the workers have ended
    for number, file in enumerate(files):
        assert torch.equal(file[:], torch.from_numpy(FRAMES + number))
    assert not list(tmp_path.iterdir())


FORK = """
import os, sys
from pathlib import Path
from vilamp.frame_file import FrameFile
file = FrameFile.make(Path(sys.argv[1]), 1, 4)
child = os.fork()
if child == 0:
    others = [os.open(sys.argv[1], os.O_RDONLY) for _ in range(3)]
    taken = file.descriptor in others  # the number was free again
    del file  # closes nothing that is not its own
    for other in others:
        os.fstat(other)
    os._exit(not taken)
os.fstat(file.descriptor)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_holds_no_room_on_the_disk(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
