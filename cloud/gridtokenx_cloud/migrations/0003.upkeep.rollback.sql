DROP INDEX mint_batches_old_markers;
DROP TABLE marker_reclaims;
DROP TABLE lookup_tables;
