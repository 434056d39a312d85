-- Only indexes that a query needs. A line that comes again is found by its meter and its own time,
-- which is the stored one's; whatever else comes under a stored seq is looked for among the meter's.

DROP INDEX meter_readings_identity;
DROP INDEX meter_readings_by_meter;
CREATE INDEX meter_readings_by_meter ON meter_readings (meter_id, at_ms DESC, seq);
