"""Programs that are killed while they write: one for each place where dvfd keeps something."""
