"""All tests: compiled JAX programs are kept for the session, so that equal runs compile once."""

import os
import tempfile

CACHE = tempfile.TemporaryDirectory(prefix="barkour-jax-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
