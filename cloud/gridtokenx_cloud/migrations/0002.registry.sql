-- Meters that move, keys that are replaced, floods that are only counted, remarks on readings.

-- A gateway whose key is replaced: until then, by the cloud's clock, both keys count.
CREATE TABLE gateway_rotations (
    gateway_id TEXT PRIMARY KEY REFERENCES gateways,
    successor_id TEXT NOT NULL UNIQUE REFERENCES gateways,
    valid_until_ms INTEGER NOT NULL,
    rotated_at_ms INTEGER NOT NULL,
    CHECK (gateway_id <> successor_id)
) STRICT, WITHOUT ROWID;

-- Which gateway may send readings of a meter, by the readings' own time. A meter that never
-- moved has no row: then `meters.gateway_id` counts for all time.
CREATE TABLE meter_gateways (
    meter_id TEXT NOT NULL REFERENCES meters,
    gateway_id TEXT NOT NULL REFERENCES gateways,
    from_ms INTEGER NOT NULL,
    until_ms INTEGER,
    moved_at_ms INTEGER NOT NULL,
    PRIMARY KEY (meter_id, gateway_id, from_ms),
    CHECK (until_ms >= from_ms)
) STRICT, WITHOUT ROWID;

-- Whose readings a meter's are, by their own time. A meter that never changed hands has no row.
CREATE TABLE meter_owners (
    meter_id TEXT NOT NULL REFERENCES meters,
    user_id TEXT NOT NULL REFERENCES users,
    from_ms INTEGER NOT NULL,
    moved_at_ms INTEGER NOT NULL,
    PRIMARY KEY (meter_id, from_ms)
) STRICT, WITHOUT ROWID;

-- Refused lines beyond what is kept of one gateway in one minute.
CREATE TABLE rejection_floods (
    gateway_id TEXT NOT NULL,
    day_ms INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    PRIMARY KEY (gateway_id, day_ms)
) STRICT, WITHOUT ROWID;

-- What the cloud remarks of a reading beside the gateway's own flags; bits, see the code.
ALTER TABLE meter_readings ADD COLUMN remarks INTEGER NOT NULL DEFAULT 0;
