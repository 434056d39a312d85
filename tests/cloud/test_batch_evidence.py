"""What an operator is shown of a disputed batch before deciding over it."""

from pathlib import Path

from gridtokenx_cloud.commands.mint_ops import _fate, _marker_fate, _minted_nothing
from tests.support.mint_world import World, minter, new_world


async def minted(world: World, path: Path) -> tuple[str, int, str]:
    """Mint a batch; return signature, last valid height and marker."""
    with minter(world, path) as m:
        m.credit(1, 500)
        await m.service.drain()
        row = m.database.connection.execute(
            "SELECT a.signature, a.last_valid_block_height, b.marker FROM mint_attempts a"
            " JOIN mint_batches b ON b.batch_id = a.batch_id"
        ).fetchone()
    return tuple(row)


async def test_an_attempt_that_landed_is_never_called_gone(tmp_path: Path) -> None:
    world = await new_world()
    signature, height, marker = await minted(world, tmp_path / "cloud.db")
    await world.sleep(200 * world.block_s)
    faults, rpc, history = world.chain.faults, world.failover, world.history()

    plain = (
        await _fate(rpc, signature, height),
        await _marker_fate(rpc, history, marker, {signature}),
    )
    faults.hide_statuses = True
    hole = (
        await _fate(rpc, signature, height),
        await _marker_fate(rpc, history, marker, {signature}),
    )
    faults.hide_history = True
    pruned = await _marker_fate(rpc, history, marker, {signature})

    assert plain == ("minted", "made by an attempt")
    # The status index is wrong; the marker is not.
    assert hole == ("never landed", "made by an attempt")
    assert pruned == "made by a transaction that no history names"


async def test_a_node_that_lags_behind_proves_nothing(tmp_path: Path) -> None:
    world = await new_world()
    signature, height, marker = await minted(world, tmp_path / "cloud.db")
    await world.sleep(400 * world.block_s)
    world.chain.faults.status_lag_blocks = 380
    world.chain.faults.account_lag_blocks = 380

    fate = await _fate(world.failover, signature, height)
    made = await _marker_fate(world.failover, world.history(), marker, {signature})

    assert not _minted_nothing(fate)
    assert made != "absent"


async def test_a_marker_of_another_form_of_the_batch_is_named_by_its_transaction(
    tmp_path: Path,
) -> None:
    world = await new_world()
    signature, _, marker = await minted(world, tmp_path / "cloud.db")

    made = await _marker_fate(world.failover, world.history(), marker, ())

    assert made == f"made by {signature}"
