"""All tests: compiled JAX programs and planned routes are kept for the session, so that each is made once."""

import os
import tempfile

CACHE = tempfile.TemporaryDirectory(prefix="barkour-jax-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ["BARKOUR_CACHE"] = os.path.join(CACHE.name, "routes")
