"""What the simulators of attractor networks share: the networks, the agent, the loop, the files."""
