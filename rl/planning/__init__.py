"""What a config would take, before any of it is started: ``apprentice plan``."""
