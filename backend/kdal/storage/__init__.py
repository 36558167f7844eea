"""What kdal remembers: tables and assets."""
