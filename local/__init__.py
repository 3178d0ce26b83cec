"""The workflow on one machine, without a cluster: its folders, its environment, and what the terminal shows."""
