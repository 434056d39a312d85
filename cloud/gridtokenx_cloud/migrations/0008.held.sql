-- Each commit of new credits looks for held readings of its meters: by meter, however many the
-- others hold.

DROP INDEX meter_readings_held;
CREATE INDEX meter_readings_held ON meter_readings (meter_id) WHERE status = 'held';
