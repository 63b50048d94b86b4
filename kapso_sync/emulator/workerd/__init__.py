"""Runs deployed code on workerd, the open-source runtime of Cloudflare Workers.

`process` keeps a workerd process ready, `runtime` has it compile and run code and translates its errors, `kv` is the key-value
store that functions see as ``env.KV``, and `d1` the database ``env.DB``, which `sqlite_worker` runs in a process of its own.
The JavaScript beside them loads each function into an isolate of its own.
"""

from kapso_sync.emulator.workerd.runtime import workerd_runtime

__all__ = ["workerd_runtime"]
