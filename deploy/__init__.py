"""What an installation needs around the daemons: units, containers, rules, dashboards. Written out by ``beamsieve deploy``."""
