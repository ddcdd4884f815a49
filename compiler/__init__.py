"""Model I/O, pipelines, the manager, verification, reports and the command line."""
