"""Do by hand what a pass does that finds everything in sync: ``list_hash_compare.py FOLDER URL KEY``.

It lists, hashes and compares, as the private scripts did that kapso-sync replaces: no manifest, no ownership, no state.
"""

import hashlib
import pathlib
import sys

import httpx

folder, url, key = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
wanted = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.js")}
there: dict[str, str] = {}
page = 1
with httpx.Client(headers={"X-API-Key": key}, trust_env=False) as client:
    while True:
        records = client.get(f"{url}/functions", params={"page": page, "per_page": 100}).json()["data"]
        there |= {record["slug"]: hashlib.sha256(record["code"].encode()).hexdigest() for record in records}
        if len(records) < 100:
            break
        page += 1
sys.exit(wanted != there)
