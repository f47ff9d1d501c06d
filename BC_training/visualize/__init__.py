"""Videos, pictures and pages a person looks at."""
