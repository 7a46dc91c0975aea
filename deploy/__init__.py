"""What an installation needs around the daemons, from units to dashboards; ``beamsieve deploy`` writes it out."""
