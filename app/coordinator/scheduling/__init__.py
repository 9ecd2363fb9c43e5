"""What happens to jobs and when: a synchronous core without I/O."""
