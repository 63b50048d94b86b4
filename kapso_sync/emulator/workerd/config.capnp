# One worker that loads all others. Where it listens and where its host is reached is said on the command line.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  v8Flags = ["--max-old-space-size=256"],
  services = [
    (
      name = "dispatcher",
      worker = (
        compatibilityDate = "2026-01-01",
        compatibilityFlags = ["experimental"],
        modules = [
          (name = "dispatcher.js", esModule = embed "dispatcher.js"),
          (name = "entry", text = embed "entry.js"),
          (name = "console", text = embed "console.js"),
          (name = "d1", text = embed "d1.js"),
        ],
        bindings = [
          (name = "LOADER", workerLoader = ()),
          (name = "KV", kvNamespace = "kv"),
          (name = "DB", service = "db"),
          (name = "INTERNET", service = "internet"),
        ],
      ),
    ),
    (name = "db", external = (address = "unix:db", http = ())),
    (name = "kv", external = (address = "unix:kv", http = ())),
    (name = "internet", network = (allow = ["public"], tlsOptions = (trustBrowserCas = true))),
  ],
  sockets = [(name = "calls", address = "unix:calls", http = (), service = "dispatcher")],
);
