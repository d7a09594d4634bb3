"""dvfd: decides on evidence whether a distributed training deployment may advance, then watches."""

__version__ = "0.1.0"
