"""The online store: the newest row of each entity, in LMDB or Redis, behind one protocol."""
