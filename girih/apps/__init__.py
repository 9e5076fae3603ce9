"""What a person starts: the command line. Knows pipelines and training; nobody imports it."""
