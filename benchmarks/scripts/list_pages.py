"""Read every page of the list of functions over one connection, and nothing else: ``list_pages.py URL KEY``."""

import http.client
import json
import sys
import urllib.parse

url, key = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2]
connection = http.client.HTTPConnection(url.hostname or "", url.port)
page, length = 1, 100
while length == 100:
    connection.request("GET", f"{url.path}/functions?page={page}&per_page=100", headers={"X-API-Key": key})
    length = len(json.loads(connection.getresponse().read())["data"])
    page += 1
