-- What an owner and the staff are told is one row: its place in the owner's stream, and beside it
-- the one in the stream `admin`. The name that an event has in a stream, its "id", is put in front
-- of the body when it is read.

ALTER TABLE events ADD COLUMN admin_offset INTEGER;
UPDATE events SET admin_offset = stream_offset WHERE stream = 'admin';
UPDATE events SET body = '{' || substr(body, instr(body, '"source":'));
CREATE UNIQUE INDEX events_of_admin ON events (admin_offset);
