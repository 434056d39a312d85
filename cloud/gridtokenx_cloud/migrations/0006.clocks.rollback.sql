DROP INDEX meter_readings_undated;
CREATE INDEX meter_readings_undated ON meter_readings (gateway_id, boot_id)
    WHERE reading_timestamp_ms IS NULL;
ALTER TABLE gateway_records DROP COLUMN error_ms;
ALTER TABLE gateway_records DROP COLUMN clock;
