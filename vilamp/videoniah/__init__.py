"""VideoNIAH: needle clips in haystacks of thousands of frames, spliced while they are read."""
