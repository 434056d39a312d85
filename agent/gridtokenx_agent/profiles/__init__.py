"""Meter profiles: which registers a meter model has, as data; and the reads that fetch them."""

from gridtokenx_agent.profiles.blocks import Block, plan_blocks, split_block
from gridtokenx_agent.profiles.loading import load_profile
from gridtokenx_agent.profiles.model import (
    ENERGY_POINTS,
    POINT_UNITS,
    MeterProfile,
    PointSpec,
    Sample,
    SerialDefaults,
)

__all__ = [
    "ENERGY_POINTS",
    "POINT_UNITS",
    "Block",
    "MeterProfile",
    "PointSpec",
    "Sample",
    "SerialDefaults",
    "load_profile",
    "plan_blocks",
    "split_block",
]
