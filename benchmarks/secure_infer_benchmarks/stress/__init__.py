"""What servers stand: hostile bytes, hours of mixed load with faults, more load than they can take."""
