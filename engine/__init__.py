"""What runs: devices, seeds, processes, loading, embedding, fitting and evaluation."""
