-- A capture time that cannot be, or whose publisher says that its clock is not synchronised.
ALTER TABLE posture_results
    ADD COLUMN IF NOT EXISTS clock_suspect boolean NOT NULL DEFAULT false;
