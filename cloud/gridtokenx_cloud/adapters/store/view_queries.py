"""The SQL of the views. `:user` NULL = everybody's.

`at_ms` is a reading's own time, or the time it came in while nothing dates it.
"""

METERS = """
    SELECT m.meter_id, m.gateway_id, m.user_id, u.wallet, m.rated_power_w,
        l.active_power_w AS live_power_w, l.submitted_at_ms AS live_at_ms,
        r.reading_id, r.reading_timestamp_ms, r.submitted_at_ms, r.import_wh, r.export_wh,
        r.active_power_w,
        COALESCE((SELECT SUM(e.credited_through_wh - e.baseline_wh) FROM meter_epochs e
            WHERE e.meter_id = m.meter_id AND e.status = 'accepted'), 0)
        -- What a former owner was credited is not this owner's to see.
        - CASE WHEN EXISTS (SELECT 1 FROM meter_owners o WHERE o.meter_id = m.meter_id)
            THEN COALESCE((SELECT SUM(f.credit_wh) FROM meter_readings f
                WHERE f.meter_id = m.meter_id AND f.user_id <> m.user_id), 0)
            + COALESCE((SELECT SUM(a.credit_wh) FROM archived_shares a
                WHERE a.meter_id = m.meter_id AND a.user_id <> m.user_id), 0)
            ELSE 0 END AS credited_wh
    FROM meters m JOIN users u USING (user_id)
    LEFT JOIN meter_live l USING (meter_id)
    LEFT JOIN meter_readings r ON r.reading_id = (
        SELECT n.reading_id FROM meter_readings n
        WHERE n.meter_id = m.meter_id AND n.user_id = m.user_id
            AND n.status IN ('accepted', 'late')
        ORDER BY at_ms DESC LIMIT 1)
    WHERE :user IS NULL OR m.user_id = :user
    ORDER BY m.user_id, m.meter_id
"""

# Registers only rise within an epoch: the day's energy is the newest total less the last one of
# yesterday, or less the first of today where the epoch began today. (CROSS JOIN keeps SQLite to
# that order, from few meters to their readings.)
TODAY = """
    SELECT t.meter_id,
        SUM(t.last_import - COALESCE(
            (SELECT b.import_wh FROM meter_readings b WHERE b.meter_id = t.meter_id
                AND b.epoch = t.epoch AND at_ms < :midnight
                AND b.status IN ('accepted', 'late')
                ORDER BY at_ms DESC LIMIT 1), t.first_import)) AS import_wh,
        SUM(t.last_export - COALESCE(
            (SELECT b.export_wh FROM meter_readings b WHERE b.meter_id = t.meter_id
                AND b.epoch = t.epoch AND at_ms < :midnight
                AND b.status IN ('accepted', 'late')
                ORDER BY at_ms DESC LIMIT 1), t.first_export)) AS export_wh
    FROM (SELECT r.meter_id, r.epoch,
            MIN(r.import_wh) AS first_import, MAX(r.import_wh) AS last_import,
            MIN(r.export_wh) AS first_export, MAX(r.export_wh) AS last_export
        FROM meters m CROSS JOIN meter_readings r
        WHERE r.meter_id = m.meter_id AND (:user IS NULL OR m.user_id = :user)
            AND at_ms >= :midnight AND r.status IN ('accepted', 'late')
        GROUP BY r.meter_id, r.epoch) t
    GROUP BY t.meter_id
"""

# Two halves, so that each finds its partial index: not in a batch yet, and in one on its way, from
# the few batches to their readings.
WAITING = """
    SELECT meter_id, user_id, SUM(credit_wh) AS wh FROM (
        SELECT meter_id, user_id, credit_wh FROM meter_readings
        WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL
        UNION ALL
        SELECT r.meter_id, r.user_id, r.credit_wh
        FROM mint_batches b CROSS JOIN meter_readings r
        WHERE r.batch_id = b.batch_id AND b.state <> 'final' AND r.credit_wh > 0
            AND r.minted = 0) w
    WHERE :user IS NULL OR user_id = :user
    GROUP BY meter_id, user_id
"""

OWNED_SINCE = """
    SELECT COALESCE(MAX(from_ms), 0) AS since_ms FROM meter_owners WHERE meter_id = :meter
"""

OWNS = "SELECT 1 FROM meters WHERE meter_id = :meter AND (:user IS NULL OR user_id = :user)"

POWER = """
    SELECT at_ms, power_w FROM (
        SELECT * FROM (SELECT at_ms, active_power_w AS power_w FROM meter_samples
            WHERE meter_id = :meter AND epoch = (
                SELECT epoch FROM meter_epochs WHERE meter_id = :meter
                ORDER BY opened_at_ms DESC LIMIT 1)
            ORDER BY seq DESC LIMIT :limit) s
        UNION ALL
        SELECT * FROM (SELECT at_ms, active_power_w AS power_w FROM meter_readings
            WHERE meter_id = :meter AND at_ms >= :since
            ORDER BY at_ms DESC LIMIT :limit) r) p
    WHERE power_w IS NOT NULL AND at_ms >= :since
    ORDER BY at_ms
"""

READING = """
    SELECT reading_id, meter_id, epoch, seq, reading_timestamp_ms, submitted_at_ms, interval_s,
        import_wh, export_wh, active_power_w, credit_wh, status, reason, batch_id, minted,
        mint_tx_signature, at_ms
    FROM meter_readings WHERE reading_id = :reading AND (:user IS NULL OR user_id = :user)
"""

READINGS = """
    SELECT reading_id, meter_id, epoch, seq, reading_timestamp_ms, submitted_at_ms, interval_s,
        import_wh, export_wh, active_power_w, credit_wh, status, reason, batch_id, minted,
        mint_tx_signature, at_ms
    FROM meter_readings
    WHERE meter_id = :meter AND (:user IS NULL OR user_id = :user)
        AND (:id IS NULL OR (at_ms, reading_id) < (:at, :id))
    ORDER BY at_ms DESC, reading_id DESC LIMIT :limit
"""

MINTS = """
    SELECT i.batch_id, b.state, i.user_id, i.wallet, i.credit_wh, i.amount_base_units,
        i.held_reason, b.signature, b.slot, b.sealed_at_ms, b.final_at_ms
    FROM mint_items i JOIN mint_batches b USING (batch_id)
    WHERE (:user IS NULL OR i.user_id = :user)
        AND (:batch IS NULL OR (i.batch_id, i.wallet) < (:batch, :wallet))
    ORDER BY i.batch_id DESC, i.wallet DESC LIMIT :limit
"""

SHARES = """
    SELECT batch_id, user_id, meter_id, SUM(credit_wh) AS credit_wh, SUM(readings) AS readings
    FROM (
        SELECT batch_id, user_id, meter_id, credit_wh, 1 AS readings FROM meter_readings
        WHERE batch_id BETWEEN :first AND :last
        UNION ALL
        SELECT batch_id, user_id, meter_id, credit_wh, readings FROM archived_shares
        WHERE batch_id BETWEEN :first AND :last) s
    WHERE :user IS NULL OR user_id = :user
    GROUP BY batch_id, user_id, meter_id ORDER BY meter_id
"""

# Base units of all time may pass SQLite's 63 bits, so they are summed in two halves.
SUMMARY = """
    SELECT u.user_id, u.wallet,
        (SELECT COUNT(*) FROM meters m WHERE m.user_id = u.user_id) AS meters,
        COALESCE(SUM(i.credit_wh), 0) AS minted_wh,
        COALESCE(SUM(i.amount_base_units / 1000000000), 0) AS minted_high,
        COALESCE(SUM(i.amount_base_units % 1000000000), 0) AS minted_low
    FROM users u
    LEFT JOIN (mint_items i JOIN mint_batches b
        ON b.batch_id = i.batch_id AND b.state = 'final') ON i.user_id = u.user_id
    WHERE :user IS NULL OR u.user_id = :user
    GROUP BY u.user_id, u.wallet ORDER BY u.user_id
"""
