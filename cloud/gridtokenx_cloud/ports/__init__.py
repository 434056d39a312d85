"""What the services need from the outside world, one module per service."""
