DROP TABLE archived_shares;
DROP TABLE archive_files;
CREATE INDEX meter_readings_by_signature ON meter_readings (mint_tx_signature)
    WHERE mint_tx_signature IS NOT NULL;
CREATE INDEX meter_readings_by_user ON meter_readings (user_id, reading_timestamp_ms DESC);
ALTER TABLE meter_epochs DROP COLUMN archived_through_seq;
ALTER TABLE meter_epochs DROP COLUMN last_reading_id;
ALTER TABLE meter_epochs DROP COLUMN last_seq;
ALTER TABLE meter_epochs DROP COLUMN baseline_reading_id;
