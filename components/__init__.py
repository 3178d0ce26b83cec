"""Pipeline steps: each wraps one room's door and holds no logic. One file per step."""
