"""`TableStore` in memory."""

from dataclasses import replace

from gridtokenx_cloud.ports.upkeep import StoredTable, TableState


class MemoryTables:
    def __init__(self) -> None:
        self.rows: dict[str, StoredTable] = {}

    def tables(self) -> list[StoredTable]:
        return [row for row in self.rows.values() if row.state != "closed"]

    def open_table(self, address: str, recent_slot: int, now_ms: int) -> None:
        self.rows[address] = StoredTable(address, recent_slot, "opening", now_ms)

    def adopt_table(self, address: str, now_ms: int) -> None:
        self.rows[address] = StoredTable(address, 0, "retiring", now_ms)

    def move_table(self, address: str, state: TableState, now_ms: int) -> None:
        self.rows[address] = replace(self.rows[address], state=state)

    def table_used(self, address: str, now_ms: int) -> None:
        self.rows[address] = replace(self.rows[address], used_at_ms=now_ms)
