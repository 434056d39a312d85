-- Old readings leave for an archive; what is still asked of them stays here.

-- Which readings an epoch stands on, by number: its first one, and the one of the highest seq.
ALTER TABLE meter_epochs ADD COLUMN baseline_reading_id INTEGER;
ALTER TABLE meter_epochs ADD COLUMN last_seq INTEGER;
ALTER TABLE meter_epochs ADD COLUMN last_reading_id INTEGER;
-- The highest seq whose line is archived: such a line that comes again is a duplicate.
ALTER TABLE meter_epochs ADD COLUMN archived_through_seq INTEGER;

UPDATE meter_epochs SET
    baseline_reading_id = (SELECT r.reading_id FROM meter_readings r
        WHERE r.meter_id = meter_epochs.meter_id AND r.epoch = meter_epochs.epoch
        AND r.seq = meter_epochs.baseline_seq),
    last_seq = (SELECT max(r.seq) FROM meter_readings r
        WHERE r.meter_id = meter_epochs.meter_id AND r.epoch = meter_epochs.epoch);
UPDATE meter_epochs SET last_reading_id = (SELECT r.reading_id FROM meter_readings r
    WHERE r.meter_id = meter_epochs.meter_id AND r.epoch = meter_epochs.epoch
    AND r.seq = meter_epochs.last_seq);

-- No query asks for these.
DROP INDEX meter_readings_by_user;
DROP INDEX meter_readings_by_signature;

-- A file is announced before it is written; `done` = verified, and its rows are gone from here.
CREATE TABLE archive_files (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('writing', 'done')),
    sha256 TEXT,
    readings INTEGER NOT NULL DEFAULT 0,
    credit_wh INTEGER NOT NULL DEFAULT 0,
    first_reading_id INTEGER,
    last_reading_id INTEGER,
    first_batch_id INTEGER,
    last_batch_id INTEGER,
    first_at_ms INTEGER,
    last_at_ms INTEGER,
    created_at_ms INTEGER NOT NULL,
    CHECK ((state = 'done') = (sha256 IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- What archived readings were worth, per batch: sums over readings count these too.
CREATE TABLE archived_shares (
    batch_id INTEGER NOT NULL REFERENCES mint_batches,
    user_id TEXT NOT NULL REFERENCES users,
    meter_id TEXT NOT NULL REFERENCES meters,
    readings INTEGER NOT NULL CHECK (readings > 0),
    credit_wh INTEGER NOT NULL CHECK (credit_wh > 0),
    PRIMARY KEY (batch_id, user_id, meter_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX archived_shares_by_meter ON archived_shares (meter_id);
