"""Is it acceptable? Policy documents, appraisal and explanation."""
