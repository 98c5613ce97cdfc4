"""What is trained: data sets, backbones, the denoiser around them, and the training loop.

Nothing here knows disks (beyond reading a data set), clusters, or analyses. `VERSION` is part of
every snapshot's identity: it is raised in the same commit as any change of the numbers.
"""

VERSION = 1
