"""Token Factory: a large recommendation model that reads signals as soft tokens."""
