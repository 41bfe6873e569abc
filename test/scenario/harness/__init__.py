"""What scenario tests share: starting programs, sinks that verify, reading metrics, waiting."""
