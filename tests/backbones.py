"""What makes each backbone small enough to be tested on 4 x 4 pixels."""

OPTIONS = {
    "ddpmpp": {"mult": (1,), "blocks": 1, "attention": (4,), "augment_dim": 0},
    "ncsnpp": {"mult": (1, 2), "blocks": 1, "attention": (), "augment_dim": 0},
    "adm": {"mult": (1, 2), "blocks": 1, "attention": (2,), "head": 4},
    "dit": {"depth": 2},
}
