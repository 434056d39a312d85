"""Which profiles may earn money: the one place where evidence is weighed."""

from gridtokenx_agent.profiles.model import ENERGY_POINTS, Evidence, MeterProfile


def energy_points_with(profile: MeterProfile, evidence: Evidence) -> tuple[str, ...]:
    """Return the energy points of *profile* that have just this evidence."""
    return tuple(
        name
        for name in ENERGY_POINTS
        if name in profile.points and profile.points[name].evidence == evidence
    )


def may_mint(profile: MeterProfile, *, accept_disputed: bool) -> bool:
    """Return whether slot records may be made from *profile*.

    Sources that differ mean that one of them reads another register, and a wrong counter looks
    as healthy as a right one: someone who compared it with the display must say so first.
    """
    return accept_disputed or not energy_points_with(profile, "DISPUTED")


def evidence_warning(profile: MeterProfile, *, accept_disputed: bool) -> str | None:
    """Return what to tell whoever uses *profile*, None when its counters are proven."""
    disputed = ", ".join(energy_points_with(profile, "DISPUTED"))
    if disputed and accept_disputed:
        return f"{disputed} disputed between sources, accepted by accept_disputed"
    if disputed:
        return (
            f"{disputed} disputed between sources: no slots are recorded; compare with the "
            "display, then set accept_disputed = true"
        )
    single = ", ".join(energy_points_with(profile, "SINGLE"))
    if single:
        return f"{single} known from one source only: compare with the display"
    return None
