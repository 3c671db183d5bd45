"""The command line: builds objects and turns errors into exit codes; it decides nothing."""
