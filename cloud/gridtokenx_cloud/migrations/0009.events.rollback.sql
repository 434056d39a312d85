DROP INDEX events_of_admin;
INSERT INTO events (stream, stream_offset, type, meter_id, body, created_at_ms)
    SELECT 'admin', admin_offset, type, meter_id, body, created_at_ms
    FROM events WHERE admin_offset IS NOT NULL AND stream <> 'admin' ORDER BY admin_offset;
UPDATE events SET body = '{"specversion":"1.0","id":"'
    || (SELECT s.epoch FROM event_streams s WHERE s.stream = events.stream)
    || '-' || stream || '-' || stream_offset || '",' || substr(body, 2);
ALTER TABLE events DROP COLUMN admin_offset;
