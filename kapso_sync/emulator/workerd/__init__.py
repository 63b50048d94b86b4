"""Runs what is deployed, on workerd: the open-source runtime that Cloudflare Workers are made of.

`process` is one workerd process and `keeper` has one ready whenever it is needed; `runtime` asks it to compile and to run;
`places` words its errors; `kv` is the key-value store that functions see as ``env.KV``. The JavaScript beside them loads each
function into an isolate of its own.
"""

from kapso_sync.emulator.workerd.runtime import workerd_runtime

__all__ = ["workerd_runtime"]
