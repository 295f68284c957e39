"""posture-publisher: takes pictures on a Pi, keeps each on disk, and publishes it until its row is committed."""
