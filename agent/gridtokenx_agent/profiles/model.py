"""What a meter profile says, as typed values."""

from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gridtokenx_agent.registers import ReadFunction, RegisterSpec

ENERGY_POINTS: Final = ("import_energy", "export_energy")
MODEL_REGISTER: Final = "model_register"
POWER_POINTS: Final = ("active_power", "active_power_l1", "active_power_l2", "active_power_l3")
_POWER = ("W", "kW")
_VOLTAGE = ("mV", "V")
_CURRENT = ("mA", "A")
POINT_UNITS: Final[dict[str, tuple[str, ...]]] = {
    "import_energy": ("Wh", "kWh", "MWh"),
    "export_energy": ("Wh", "kWh", "MWh"),
    "active_power": _POWER,
    "active_power_l1": _POWER,
    "active_power_l2": _POWER,
    "active_power_l3": _POWER,
    "voltage_l1": _VOLTAGE,
    "voltage_l2": _VOLTAGE,
    "voltage_l3": _VOLTAGE,
    "current_l1": _CURRENT,
    "current_l2": _CURRENT,
    "current_l3": _CURRENT,
    "frequency": ("mHz", "Hz"),
    "power_factor": ("PF", "%", "PF4Q"),
}
"""The points a profile may name, and the units each may have."""

_Strict = ConfigDict(frozen=True, extra="forbid")
_Text = Annotated[str, Field(min_length=1)]
Evidence = Literal["VERIFIED", "SINGLE", "DISPUTED"]


class PointSpec(RegisterSpec):
    """One register value of a meter.

    Attributes:
        address: First register, 0-based, as it goes over the wire; in a SunSpec profile counted
            from the id register of its model.
        function: Modbus function, where it differs from the profile's.
        evidence: How well a register is proven: VERIFIED = two independent sources agree, SINGLE
            = there is one source, DISPUTED = sources differ.
        positive: Which way a positive power flows; the wire's power is positive from the grid.
    """

    address: Annotated[int, Field(ge=0, le=0xFFFF)]
    function: ReadFunction | None = None
    evidence: Evidence | None = None
    positive: Literal["from_grid", "to_grid"] = "from_grid"

    @property
    def factor(self) -> Decimal:
        """What the raw number is multiplied with, the direction included."""
        return self.scale if self.positive == "from_grid" else -self.scale


class ModelRegister(PointSpec):
    """A register that says which model the meter is.

    Attributes:
        says: What it may say, as text, for the models of this profile.
    """

    says: Annotated[tuple[_Text, ...], Field(min_length=1)]


class SerialDefaults(BaseModel):
    """Line settings the meter leaves the factory with."""

    model_config = _Strict

    baudrate: Annotated[int, Field(ge=300, le=921_600)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1


class Sample(BaseModel):
    """What a meter once sent, and what it means: the profile proves itself when it is loaded.

    Attributes:
        point: Name of a point, or `identity`.
        words: The words in bus order, four hex digits each.
        value: Expected value as decimal text, or
        flag: the expected reason why there is none.
    """

    model_config = _Strict

    point: str
    words: tuple[Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{4}$")], ...]
    value: str | None = None
    flag: str | None = None

    @model_validator(mode="after")
    def _has_one_expectation(self) -> Self:
        if (self.value is None) == (self.flag is None):
            raise ValueError("give either `value` or `flag`")
        return self


class SunSpecModels(BaseModel):
    """Where a SunSpec device keeps the values: not at an address, but in a model.

    Attributes:
        models: Model ids whose registers lie as the profile says.
        instance: Which of several such models, counted from 1.
    """

    model_config = _Strict

    models: Annotated[tuple[Annotated[int, Field(ge=2, le=0xFFFE)], ...], Field(min_length=1)]
    instance: Annotated[int, Field(ge=1, le=32)] = 1


class MeterProfile(BaseModel):
    """One meter model, as a file in firmware-config/meters describes it.

    Attributes:
        model: Model name of the manufacturer.
        manufacturer: Who makes it.
        also: Other models with the same registers.
        grade: How the profile was proven: from documents, on a bench, or in the field.
        function: Modbus function of all points that name none.
        resolution_wh: Smallest step of the energy counters; nothing below it is credited.
        counter_modulus_wh: The counter starts again at 0 here; None when it is not known to.
        resettable: The counters can be set back at the meter.
        min_gap_ms: Rest the meter needs between two requests.
        max_registers: Most registers in one request.
        serial: Factory line settings.
        sunspec: The model to look for; then addresses count from its id register, and those of
            `identity` from the id register of the common model before it.
        points: The values, by name.
        identity: A register that tells this meter from another one, such as its serial number.
        model_register: A register that tells this model from others.
        samples: Proofs.
    """

    model_config = _Strict

    model: _Text
    manufacturer: _Text
    also: tuple[_Text, ...] = ()
    grade: Literal["datasheet", "bench", "field"]
    function: ReadFunction
    resolution_wh: Annotated[int, Field(ge=1, le=1_000_000)]
    counter_modulus_wh: Annotated[int, Field(ge=1000, le=2**63 - 1)] | None = None
    resettable: bool = False
    min_gap_ms: Annotated[int, Field(ge=0, le=5000)] = 0
    max_registers: Annotated[int, Field(ge=4, le=125)] = 125
    serial: SerialDefaults = SerialDefaults()
    sunspec: SunSpecModels | None = None
    points: dict[str, PointSpec]
    identity: PointSpec | None = None
    model_register: ModelRegister | None = None
    samples: tuple[Sample, ...] = ()

    def spec(self, name: str) -> PointSpec | None:
        """Return the point called *name*; `identity` and `model_register` are two of them."""
        if name == "identity":
            return self.identity
        if name == MODEL_REGISTER:
            return self.model_register
        return self.points.get(name)

    def function_of(self, point: PointSpec) -> ReadFunction:
        """Return the Modbus function that reads *point*."""
        return point.function or self.function
