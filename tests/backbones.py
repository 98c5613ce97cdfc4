"""What makes each backbone small enough to be tested on 4 x 4 pixels."""

PYRAMID = {"mult": (1, 2), "blocks": 1, "attention": (2,), "augment_dim": 0}
OPTIONS = {"ddpmpp": PYRAMID, "ncsnpp": PYRAMID}
