"""The plain BentoML peer, in a module of its own because BentoML imports it by name."""

from tests.benchmarks.peers import bento_service

Plain = bento_service()
