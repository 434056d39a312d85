-- The first schema. Times are Unix milliseconds UTC, energy is Wh, amounts are base units.
-- Base units are u64 on chain; SQLite integers are i64, so amounts above 2^63-1 are refused
-- by the code before they come here.

CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE users (
    user_id TEXT PRIMARY KEY,
    wallet TEXT NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE gateways (
    gateway_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'revoked')),
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE meters (
    meter_id TEXT PRIMARY KEY,
    gateway_id TEXT NOT NULL REFERENCES gateways,
    user_id TEXT NOT NULL REFERENCES users,
    rated_power_w INTEGER NOT NULL CHECK (rated_power_w > 0),
    resolution_wh INTEGER NOT NULL CHECK (resolution_wh > 0),
    epoch_policy TEXT NOT NULL CHECK (epoch_policy IN ('first', 'any', 'none')),
    created_at_ms INTEGER NOT NULL
) STRICT;

-- One row per counter epoch of a meter; the row that is locked while a credit moves.
-- credited through - baseline = Wh credited in this epoch; both move outwards only.
CREATE TABLE meter_epochs (
    meter_id TEXT NOT NULL REFERENCES meters,
    epoch TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('accepted', 'held')),
    baseline_wh INTEGER,
    baseline_seq INTEGER,
    credited_through_wh INTEGER,
    newest_seq INTEGER,
    newest_reading_id INTEGER,
    opened_at_ms INTEGER NOT NULL,
    PRIMARY KEY (meter_id, epoch),
    CHECK (credited_through_wh >= baseline_wh),
    CHECK ((baseline_wh IS NULL) = (credited_through_wh IS NULL))
) STRICT, WITHOUT ROWID;

-- The sequence ledger: which seq of a stream are stored. Stream = meter_id, or
-- '_gateway:<gateway_id>' for records of the gateway itself.
CREATE TABLE seq_ranges (
    stream TEXT NOT NULL,
    epoch TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL CHECK (last_seq >= first_seq),
    PRIMARY KEY (stream, epoch, first_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE mint_batches (
    batch_id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL
        CHECK (state IN ('sealed', 'signed', 'in_flight', 'final', 'void', 'disputed')),
    memo TEXT NOT NULL,
    merkle_root BLOB NOT NULL,
    leaf_count INTEGER NOT NULL,
    marker TEXT NOT NULL UNIQUE,
    total_wh INTEGER NOT NULL,
    total_base_units INTEGER NOT NULL,
    sealed_at_ms INTEGER NOT NULL,
    oldest_credit_at_ms INTEGER NOT NULL,
    final_at_ms INTEGER,
    signature TEXT,
    slot INTEGER,
    fee_lamports INTEGER,
    marker_reclaimed_at_ms INTEGER,
    dispute TEXT,
    CHECK ((state = 'final') = (signature IS NOT NULL)),
    CHECK ((state = 'disputed') = (dispute IS NOT NULL))
) STRICT;

CREATE TABLE mint_items (
    batch_id INTEGER NOT NULL REFERENCES mint_batches,
    wallet TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users,
    token_account TEXT NOT NULL,
    credit_wh INTEGER NOT NULL CHECK (credit_wh > 0),
    amount_base_units INTEGER NOT NULL CHECK (amount_base_units > 0),
    held_reason TEXT,
    PRIMARY KEY (batch_id, wallet)
) STRICT, WITHOUT ROWID;

CREATE TABLE mint_attempts (
    batch_id INTEGER NOT NULL REFERENCES mint_batches,
    n INTEGER NOT NULL CHECK (n > 0),
    signature TEXT NOT NULL UNIQUE,
    raw BLOB NOT NULL,
    last_valid_block_height INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('pending', 'landed', 'failed', 'expired')),
    error TEXT,
    slot INTEGER,
    signed_at_ms INTEGER NOT NULL,
    sent_at_ms INTEGER,
    ended_at_ms INTEGER,
    PRIMARY KEY (batch_id, n)
) STRICT, WITHOUT ROWID;

-- At most one attempt of a batch may be able to land.
CREATE UNIQUE INDEX mint_attempts_one_pending ON mint_attempts (batch_id)
    WHERE outcome = 'pending';

CREATE TABLE meter_readings (
    reading_id INTEGER PRIMARY KEY,
    meter_id TEXT NOT NULL REFERENCES meters,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    gateway_id TEXT NOT NULL REFERENCES gateways,
    user_id TEXT NOT NULL REFERENCES users,
    reading_timestamp_ms INTEGER,
    submitted_at_ms INTEGER NOT NULL,
    at_ms INTEGER GENERATED ALWAYS AS (coalesce(reading_timestamp_ms, submitted_at_ms)) VIRTUAL,
    interval_s INTEGER NOT NULL,
    import_wh INTEGER NOT NULL,
    export_wh INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    mono_ms INTEGER NOT NULL,
    active_power_w INTEGER,
    credit_wh INTEGER NOT NULL DEFAULT 0 CHECK (credit_wh >= 0),
    status TEXT NOT NULL CHECK (status IN ('accepted', 'late', 'held', 'rejected')),
    reason TEXT,
    line BLOB NOT NULL,
    batch_id INTEGER REFERENCES mint_batches,
    minted INTEGER NOT NULL DEFAULT 0 CHECK (minted IN (0, 1)),
    mint_tx_signature TEXT,
    CHECK ((minted = 1) = (mint_tx_signature IS NOT NULL)),
    CHECK (minted = 0 OR batch_id IS NOT NULL),
    CHECK (credit_wh = 0 OR status IN ('accepted', 'late'))
) STRICT;

CREATE INDEX meter_readings_identity ON meter_readings (meter_id, epoch, seq);
CREATE INDEX meter_readings_unminted ON meter_readings (submitted_at_ms, reading_id)
    WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL;
CREATE INDEX meter_readings_by_meter ON meter_readings (meter_id, at_ms DESC);
CREATE INDEX meter_readings_by_user ON meter_readings (user_id, reading_timestamp_ms DESC);
CREATE INDEX meter_readings_by_batch ON meter_readings (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX meter_readings_by_signature ON meter_readings (mint_tx_signature)
    WHERE mint_tx_signature IS NOT NULL;
CREATE INDEX meter_readings_undated ON meter_readings (gateway_id, boot_id)
    WHERE reading_timestamp_ms IS NULL;
CREATE INDEX meter_readings_held ON meter_readings (status) WHERE status = 'held';

CREATE TABLE minting_retry_queue (
    id INTEGER PRIMARY KEY,
    reading_id INTEGER NOT NULL UNIQUE REFERENCES meter_readings ON DELETE CASCADE,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1 CHECK (attempts >= 1),
    next_retry_at_ms INTEGER NOT NULL,
    parked_at_ms INTEGER,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX minting_retry_queue_due ON minting_retry_queue (next_retry_at_ms)
    WHERE parked_at_ms IS NULL;
CREATE INDEX minting_retry_queue_attempts ON minting_retry_queue (attempts);

-- SQLite is given this function by the program.
-- postgresql: CREATE FUNCTION owner_percentile(user_id text) RETURNS bigint IMMUTABLE STRICT
-- postgresql:     LANGUAGE sql RETURN
-- postgresql:     -- The first eight bytes of the hash, modulo 100: 2^32 modulo 100 is 96.
-- postgresql:     ((('x' || encode(substr(sha256(convert_to(user_id, 'UTF8')), 1, 4), 'hex'))
-- postgresql:         ::bit(32)::bigint % 100) * 96
-- postgresql:     + ('x' || encode(substr(sha256(convert_to(user_id, 'UTF8')), 5, 4), 'hex'))
-- postgresql:         ::bit(32)::bigint % 100) % 100;

-- Credits in no batch; attempts and times are NULL for those never refused.
CREATE VIEW mint_queue AS
    SELECT r.reading_id, r.user_id, u.wallet AS wallet_address, r.meter_id, r.credit_wh,
        r.submitted_at_ms, q.attempts, q.next_retry_at_ms, q.parked_at_ms
    FROM meter_readings r
    JOIN users u ON u.user_id = r.user_id
    LEFT JOIN minting_retry_queue q ON q.reading_id = r.reading_id
    WHERE r.credit_wh > 0 AND r.minted = 0 AND r.batch_id IS NULL;

CREATE TABLE meter_samples (
    meter_id TEXT NOT NULL REFERENCES meters,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    reading_timestamp_ms INTEGER,
    submitted_at_ms INTEGER NOT NULL,
    at_ms INTEGER GENERATED ALWAYS AS (coalesce(reading_timestamp_ms, submitted_at_ms)) VIRTUAL,
    active_power_w INTEGER,
    voltage_mv INTEGER,
    current_ma INTEGER,
    frequency_mhz INTEGER,
    line BLOB NOT NULL,
    PRIMARY KEY (meter_id, epoch, seq)
) STRICT, WITHOUT ROWID;

-- Newest live values per meter; overwritten, for the page and for a new subscriber.
CREATE TABLE meter_live (
    meter_id TEXT PRIMARY KEY REFERENCES meters,
    wall_ms INTEGER NOT NULL,
    submitted_at_ms INTEGER NOT NULL,
    active_power_w INTEGER,
    voltage_mv INTEGER,
    current_ma INTEGER,
    frequency_mhz INTEGER
) STRICT, WITHOUT ROWID;

-- Event and clock records, as they came.
CREATE TABLE gateway_records (
    record_id INTEGER PRIMARY KEY,
    gateway_id TEXT NOT NULL REFERENCES gateways,
    stream TEXT NOT NULL,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('event', 'clock')),
    boot_id TEXT NOT NULL,
    mono_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL,
    event TEXT,
    detail TEXT,
    submitted_at_ms INTEGER NOT NULL,
    line BLOB NOT NULL
) STRICT;

CREATE INDEX gateway_records_clock ON gateway_records (gateway_id, boot_id, mono_ms)
    WHERE kind = 'clock';

CREATE TABLE rejections (
    rejection_id INTEGER PRIMARY KEY,
    gateway_id TEXT NOT NULL,
    line_hash TEXT NOT NULL,
    line BLOB NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    times INTEGER NOT NULL DEFAULT 1,
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    UNIQUE (gateway_id, line_hash)
) STRICT;

-- The outbox: a gapless offset per stream, taken in the transaction that made the event true.
CREATE TABLE event_streams (
    stream TEXT PRIMARY KEY,
    epoch TEXT NOT NULL,
    last_offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    event_number INTEGER PRIMARY KEY,
    stream TEXT NOT NULL REFERENCES event_streams,
    stream_offset INTEGER NOT NULL,
    type TEXT NOT NULL,
    meter_id TEXT,
    body TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (stream, stream_offset)
) STRICT;

CREATE TABLE audit_log (
    entry INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;

CREATE TABLE api_tokens (
    token_hash TEXT PRIMARY KEY,
    label TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('owner', 'viewer', 'operator', 'admin')),
    user_id TEXT REFERENCES users,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    revoked_at_ms INTEGER,
    CHECK ((role = 'owner') = (user_id IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    session_hash TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL REFERENCES api_tokens ON DELETE CASCADE,
    expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ws_tickets (
    ticket_hash TEXT PRIMARY KEY,
    session_hash TEXT,
    token_hash TEXT NOT NULL REFERENCES api_tokens ON DELETE CASCADE,
    expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE settings_overrides (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    updated_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
