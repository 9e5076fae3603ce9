"""One module a command group. Each knows its options; what it starts is imported when the command runs."""
