-- Of several clock records of a boot the best one dates its readings, also those dated before.

-- How far the gateway trusted its clock, and how wrong it was at most; NULL in older rows, which
-- any other record is better than.
ALTER TABLE gateway_records ADD COLUMN clock INTEGER;
ALTER TABLE gateway_records ADD COLUMN error_ms INTEGER;

DROP INDEX meter_readings_undated;
CREATE INDEX meter_readings_undated ON meter_readings (gateway_id, boot_id) WHERE clock = 0;
