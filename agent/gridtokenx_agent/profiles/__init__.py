"""Meter profiles: which registers a meter model has, as data; and the reads that fetch them."""

from gridtokenx_agent.profiles.blocks import Block, plan_blocks, split_block
from gridtokenx_agent.profiles.budget import Load, bus_busy_percent, busy_fault
from gridtokenx_agent.profiles.counting import counting, counts_alike
from gridtokenx_agent.profiles.evidence import evidence_warning, may_mint
from gridtokenx_agent.profiles.loading import load_profile
from gridtokenx_agent.profiles.model import (
    ENERGY_POINTS,
    MODEL_REGISTER,
    POINT_UNITS,
    MeterProfile,
    ModelRegister,
    PointSpec,
    Sample,
    SerialDefaults,
    SunSpecModels,
)
from gridtokenx_agent.profiles.recognition import recognises
from gridtokenx_agent.profiles.sunspec import (
    LocatedProfile,
    ModelPlace,
    NotFound,
    Search,
    find_model,
    locate,
)

__all__ = [
    "ENERGY_POINTS",
    "MODEL_REGISTER",
    "POINT_UNITS",
    "Block",
    "Load",
    "LocatedProfile",
    "MeterProfile",
    "ModelPlace",
    "ModelRegister",
    "NotFound",
    "PointSpec",
    "Sample",
    "Search",
    "SerialDefaults",
    "SunSpecModels",
    "bus_busy_percent",
    "busy_fault",
    "counting",
    "counts_alike",
    "evidence_warning",
    "find_model",
    "load_profile",
    "locate",
    "may_mint",
    "plan_blocks",
    "recognises",
    "split_block",
]
