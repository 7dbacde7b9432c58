"""The whole workflow, from masks to terms that are measured exactly."""
